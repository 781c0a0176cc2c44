package workers

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// shortID is the shortest container id that tools print, in digits.
const shortID = 12

// inCGroup reports whether a process is in a control group or one below it.
func inCGroup(pid int, want string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false
	}
	return cgroupMatches(string(b), want)
}

// cgroupMatches looks at the lines of /proc/PID/cgroup, "0::/a/b" or, with
// version 1, "4:memory:/a/b".
func cgroupMatches(lines, want string) bool {
	// As Kubernetes and others write it: docker://ID, containerd://ID.
	if _, rest, ok := strings.Cut(want, "://"); ok {
		want = rest
	}
	want, mounted := strings.CutPrefix(want, cgroupMount)
	id := isContainerID(want)
	for line := range strings.Lines(lines) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		path := f[2]
		if id {
			for part := range strings.SplitSeq(path, "/") {
				if hasID(part, want) {
					return true
				}
			}
			continue
		}
		w := "/" + strings.Trim(want, "/")
		if under(path, w) {
			return true
		}
		// Of version 1 each controller has a tree of its own; "unified" is version 2's
		// beside them.
		tree, rest, deeper := strings.Cut(w[1:], "/")
		if mounted && deeper && (slices.Contains(strings.Split(f[1], ","), tree) || f[1] == tree || f[0] == "0" && tree == "unified" || f[1] == "name="+tree) && under(path, "/"+rest) {
			return true
		}
	}
	return false
}

// cgroupMount is where control groups are mounted.
const cgroupMount = "/sys/fs/cgroup"

// under reports whether a group is another or below it.
func under(path, group string) bool {
	return path == group || strings.HasPrefix(path, group+"/") || group == "/"
}

// hasID finds an id at the start of a group's name, or behind what a runtime
// puts before it: docker-ID.scope, cri-containerd-ID.scope, libpod-ID.
func hasID(part, id string) bool {
	for {
		if strings.HasPrefix(part, id) {
			return true
		}
		i := strings.IndexAny(part, "-:_")
		if i < 0 {
			return false
		}
		part = part[i+1:]
	}
}

func isContainerID(s string) bool {
	if len(s) < shortID {
		return false
	}
	for _, c := range s {
		if !strings.ContainsRune("0123456789abcdef", c) {
			return false
		}
	}
	return true
}
