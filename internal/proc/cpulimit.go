package proc

import (
	"bytes"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// maxGroups bounds how many control groups above a process are looked at.
const maxGroups = 32

// CPULimit is the limit of a control group that a process is in: all its members
// together get Quota of processor time in each Period. Held is for how long the group
// has been kept from running since it was made, which is counted per processor.
type CPULimit struct {
	Group         string // its path
	Quota, Period time.Duration
	Held          time.Duration
}

// CPULimits are the control groups with a limit on processor time that the process is
// in, the innermost first; of both versions (Documentation/admin-guide/cgroup-v2.rst,
// scheduler/sched-bwc.rst). Groups that can't be seen from here are left out, as those
// around a container are from inside it; all says that there can be none.
func (p *Process) CPULimits() (limits []CPULimit, all bool) {
	groups, err := p.fs.Cgroups()
	if err != nil {
		return nil, false
	}
	mounts, err := procfs.GetMounts()
	if err != nil {
		return nil, false
	}
	ns, err := os.Readlink("/proc/self/ns/cgroup")
	whole := err == nil && ns == initialCgroupNS
	for _, g := range groups {
		v2 := g.HierarchyID == 0
		if !v2 && !slices.Contains(g.Controllers, "cpu") {
			continue
		}
		for _, m := range mounts {
			if _, cpu := m.SuperOptions["cpu"]; !(v2 && m.FSType == "cgroup2") && !(!v2 && m.FSType == "cgroup" && cpu) {
				continue
			}
			out := limitsBelow(m, path.Clean(g.Path))
			if len(out) > 0 {
				return out, whole
			}
			if _, err := os.Stat(path.Join(m.MountPoint, g.Path)); err == nil && m.Root == "/" {
				all = whole
			}
		}
	}
	return nil, all
}

// initialCgroupNS never changes (include/linux/proc_ns.h, PROC_CGROUP_INIT_INO).
const initialCgroupNS = "cgroup:[4026531835]"

// limitsBelow are the limits of a group and of those above it, as far as a mount shows.
func limitsBelow(m *procfs.MountInfo, group string) []CPULimit {
	in, ok := strings.CutPrefix(group, strings.TrimSuffix(m.Root, "/"))
	// "/../x" is what a process in another cgroup namespace is shown in.
	if !ok || in != "" && in[0] != '/' || strings.HasPrefix(in, "/..") {
		return nil
	}
	var out []CPULimit
	for range maxGroups {
		if l, ok := readLimit(path.Join(m.MountPoint, in)); ok {
			l.Group = path.Join(m.Root, in)
			out = append(out, l)
		}
		if in == "/" || in == "" {
			break
		}
		in = path.Dir(in)
	}
	return out
}

// readLimit reads one group's folder; false when there is no limit.
func readLimit(dir string) (CPULimit, bool) {
	read := func(name string) []string {
		b, err := os.ReadFile(path.Join(dir, name))
		if err != nil {
			return nil
		}
		return strings.Fields(string(b))
	}
	max := read("cpu.max") // version 2: quota or "max", period
	if len(max) == 0 {
		max = append(read("cpu.cfs_quota_us"), read("cpu.cfs_period_us")...)
	}
	if len(max) != 2 {
		return CPULimit{}, false
	}
	quota, err1 := strconv.ParseInt(max[0], 10, 64) // "max" and -1 are no limit
	period, err2 := strconv.ParseInt(max[1], 10, 64)
	if err1 != nil || err2 != nil || quota <= 0 || period <= 0 {
		return CPULimit{}, false
	}
	l := CPULimit{Quota: time.Duration(quota) * time.Microsecond, Period: time.Duration(period) * time.Microsecond}
	b, err := os.ReadFile(path.Join(dir, "cpu.stat"))
	if err != nil {
		return CPULimit{}, false
	}
	for line := range bytes.Lines(b) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		n, err := strconv.ParseInt(value, 10, 64)
		switch {
		case err != nil:
		case name == "throttled_usec": // version 2
			l.Held = time.Duration(n) * time.Microsecond
		case name == "throttled_time": // version 1
			l.Held = time.Duration(n)
		}
	}
	return l, true
}
