package proc

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/procfs"
)

// TestCPULimitsOfBothVersions reads folders as the kernel lays them out.
func TestCPULimitsOfBothVersions(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"two/cpu.stat":                     "usage_usec 9\n", // the root has no cpu.max
		"two/pods/cpu.max":                 "200000 100000\n",
		"two/pods/cpu.stat":                "usage_usec 1\nnr_throttled 0\nthrottled_usec 0\n",
		"two/pods/web/cpu.max":             "max 100000\n",
		"two/pods/web/cpu.stat":            "usage_usec 1\nthrottled_usec 7\n",
		"two/pods/web/php/cpu.max":         "5000 100000\n",
		"two/pods/web/php/cpu.stat":        "usage_usec 1\nnr_throttled 3\nthrottled_usec 1500\n",
		"one/cpu.cfs_quota_us":             "-1\n",
		"one/cpu.cfs_period_us":            "100000\n",
		"one/cpu.stat":                     "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
		"one/docker/abc/cpu.cfs_quota_us":  "50000\n",
		"one/docker/abc/cpu.cfs_period_us": "100000\n",
		"one/docker/abc/cpu.stat":          "nr_periods 9\nnr_throttled 2\nthrottled_time 2500000\n",
		"odd/bad/cpu.max":                  "5000\n",
		"odd/none/cpu.max":                 "5000 0\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ms, us := time.Millisecond, time.Microsecond
	for _, c := range []struct {
		name, mount, root, group string
		want                     []CPULimit
	}{
		{"those above count, too", "two", "/", "/pods/web/php", []CPULimit{
			{"/pods/web/php", 5 * ms, 100 * ms, 1500 * us}, {"/pods", 200 * ms, 100 * ms, 0}}},
		{"max is none", "two", "/", "/pods/web", []CPULimit{{"/pods", 200 * ms, 100 * ms, 0}}},
		{"the root has none", "two", "/", "/", nil},
		{"version 1", "one", "/", "/docker/abc", []CPULimit{{"/docker/abc", 50 * ms, 100 * ms, 2500 * us}}},
		{"a mount that shows a part", "two/pods", "/pods", "/pods/web/php", []CPULimit{
			{"/pods/web/php", 5 * ms, 100 * ms, 1500 * us}, {"/pods", 200 * ms, 100 * ms, 0}}},
		{"a group that the mount does not show", "two/pods", "/pods", "/system/x", nil},
		{"a group whose name begins like the part", "two/pods", "/po", "/pods/web", nil},
		{"one number", "odd", "/", "/bad", nil},
		{"no period", "odd", "/", "/none", nil},
		{"a group of another namespace", "two", "/", "/../elsewhere", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := limitsBelow(&procfs.MountInfo{Root: c.root, MountPoint: filepath.Join(dir, c.mount)}, c.group)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
