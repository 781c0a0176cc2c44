package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Status is /proc/PID/status: its lines by name.
type Status map[string]string

// ReadStatus reads it of a process or thread, also of one that is no PHP
// worker. Unlike most of /proc anybody may, unless hidepid is set.
func ReadStatus(pid int) (Status, error) { return readStatus(fmt.Sprintf("/proc/%d/status", pid)) }

// OwnStatus reads that of this process.
func OwnStatus() (Status, error) { return readStatus("/proc/self/status") }

func readStatus(path string) (Status, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, classify(err)
	}
	s := make(Status)
	for line := range strings.Lines(string(b)) {
		if name, v, ok := strings.Cut(line, ":"); ok {
			s[name] = strings.TrimSpace(v)
		}
	}
	return s, nil
}

// Number is the first number of a line; false when there is no such line.
func (s Status) Number(name string) (int, bool) {
	first, _, _ := strings.Cut(s[name], "\t")
	n, err := strconv.Atoi(strings.TrimSpace(first))
	return n, err == nil
}

// Caps is a line such as CapEff; false when there is no such line.
func (s Status) Caps(name string) (CapSet, bool) {
	n, err := strconv.ParseUint(s[name], 16, 64)
	return CapSet(n), err == nil
}

// The modes of seccomp.
const (
	SeccompNone   = 0
	SeccompStrict = 1
	SeccompFilter = 2
)
