package doctor

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"strings"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/report"
)

// facts are the settings that explain why something is refused.
type facts struct {
	proc.Access
	host         report.DoctorHost
	major, minor int  // of the kernel; 0 when unknown
	mapFiles     bool // /proc/PID/map_files can be opened
}

func hostFacts() *facts {
	f := &facts{Access: proc.OwnAccess()}
	h := &f.host
	h.Arch, h.UID, h.Seccomp, h.UserNS = runtime.GOARCH, f.Me, f.Seccomp, f.UserNS
	h.Kernel = firstLine("/proc/sys/kernel/osrelease")
	// Neither number matters to a kernel that calls itself something else.
	_, _ = fmt.Sscanf(h.Kernel, "%d.%d", &f.major, &f.minor)
	if u, err := user.LookupId(strconv.Itoa(f.Me)); err == nil {
		h.User = u.Username
	}
	h.Capabilities = (f.Own & useful()).Names()
	if f.Yama >= 0 {
		h.Yama = &f.Access.Yama
	}
	if n, ok := proc.PerfParanoid(); ok { // below 0 is a setting, too
		h.Paranoid = &n
	}
	h.Lockdown = chosen(firstLine("/sys/kernel/security/lockdown"))
	h.HidePID = hidePID(readFile("/proc/self/mountinfo"))
	h.Container = container()
	f.mapFiles = canOpenMapped()
	return f
}

// useful are the capabilities that are worth a word.
func useful() proc.CapSet {
	return proc.Tracing() | proc.Uprobes()
}

// maxSetting bounds what is read of a file of /proc or /sys, in bytes.
const maxSetting = 1 << 20

func readFile(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return b[:min(len(b), maxSetting)]
}

func firstLine(path string) string {
	line, _, _ := strings.Cut(string(readFile(path)), "\n")
	return strings.TrimSpace(line)
}

// chosen is the word in brackets: "none [integrity] confidentiality".
func chosen(s string) string {
	_, s, _ = strings.Cut(s, "[")
	s, _, ok := strings.Cut(s, "]")
	if !ok {
		return ""
	}
	return s
}

// hidePID finds the option in the mount of /proc.
func hidePID(mountinfo []byte) string {
	last := ""
	for line := range strings.Lines(string(mountinfo)) {
		mount, super, ok := strings.Cut(line, " - ")
		if fields := strings.Fields(mount); !ok || len(fields) < 5 || fields[4] != "/proc" {
			continue
		}
		last = "" // a later mount hides an earlier one
		for opt := range strings.SplitSeq(strings.TrimSpace(super), ",") {
			if v, ok := strings.CutPrefix(opt, "hidepid="); ok && v != "0" && v != "off" {
				last = v
			}
		}
	}
	return last
}

// container goes by the marks that container managers leave.
func container() string {
	for path, name := range map[string]string{"/.dockerenv": "docker", "/run/.containerenv": "podman"} {
		if _, err := os.Stat(path); err == nil {
			return name
		}
	}
	if s := firstLine("/run/systemd/container"); s != "" {
		return s
	}
	for _, v := range bytes.Split(readFile("/proc/1/environ"), []byte{0}) {
		if name, ok := strings.CutPrefix(string(v), "container="); ok && name != "" {
			return name
		}
	}
	return containerOf(string(readFile("/proc/self/cgroup")))
}

// containerOf goes by the names of control groups.
func containerOf(cgroup string) string {
	for _, mark := range []string{"kubepods", "docker", "libpod", "containerd", "lxc"} {
		if strings.Contains(cgroup, mark) {
			return mark
		}
	}
	if proc.InPIDNamespace() {
		return "a pid namespace"
	}
	return ""
}

// canOpenMapped tries /proc/self/map_files with our own program.
func canOpenMapped() bool {
	line, _, _ := strings.Cut(string(readFile("/proc/self/maps")), " ")
	f, err := os.Open("/proc/self/map_files/" + trimZeros(line))
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}

// trimZeros writes a range of maps as map_files does, without leading zeros.
func trimZeros(s string) string {
	from, to, _ := strings.Cut(s, "-")
	return strings.TrimLeft(from, "0") + "-" + strings.TrimLeft(to, "0")
}
