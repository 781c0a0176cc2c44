package proc

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

func TestCapabilitiesAreNamed(t *testing.T) {
	for c, want := range map[Capability]string{
		0: "CAP_CHOWN", CapDACOverride: "CAP_DAC_OVERRIDE", CapDACReadSearch: "CAP_DAC_READ_SEARCH", CapKill: "CAP_KILL", CapIPCLock: "CAP_IPC_LOCK",
		CapSysPtrace: "CAP_SYS_PTRACE", CapSysAdmin: "CAP_SYS_ADMIN", CapSysNice: "CAP_SYS_NICE", CapPerfmon: "CAP_PERFMON", CapBPF: "CAP_BPF",
		CapCheckpointRestore: "CAP_CHECKPOINT_RESTORE", 63: "capability 63",
	} {
		if got := c.String(); got != want {
			t.Errorf("%d is %s, want %s", uint8(c), got, want)
		}
	}
	if got := strings.Join(Caps(CapSysPtrace, CapKill).Names(), " "); got != "CAP_KILL CAP_SYS_PTRACE" {
		t.Error(got)
	}
}

func TestTracingHoldsNothingThatActsOnOthers(t *testing.T) {
	s := Tracing()
	if !s.Has(CapSysPtrace) || s.Has(CapKill) || s&Caps(CapSysPtrace) == 0 {
		t.Error(s.Names())
	}
	if last, ok := lastCap(); ok && last >= CapCheckpointRestore && s.Has(CapSysAdmin) {
		t.Errorf("CAP_SYS_ADMIN on a kernel with the finer ones: %v", s.Names())
	}
}

func TestStatusIsRead(t *testing.T) {
	st, err := OwnStatus()
	if err != nil {
		t.Fatal(err)
	}
	if pid, ok := st.Number("Pid"); !ok || pid != os.Getpid() {
		t.Errorf("pid %d", pid)
	}
	if _, ok := st.Caps("CapEff"); !ok {
		t.Error("no CapEff")
	}
	if _, ok := st.Number("Nonsense"); ok {
		t.Error("a line that does not exist has a number")
	}
	if _, err := ReadStatus(1 << 22); err == nil {
		t.Error("a process that does not exist has a status")
	}
}

func TestPermissionIsExplained(t *testing.T) {
	ptrace := Caps(CapSysPtrace)
	base := Access{Yama: -1, FileOwner: -1, Paranoid: 2}
	for _, tt := range []struct {
		name string
		edit func(*Access)
		want string
	}{
		{"yama 3 forbids all", func(a *Access) { a.Own, a.Yama = ptrace, 3 }, "ptrace_scope=3"},
		{"yama 1", func(a *Access) { a.Me, a.Theirs, a.Yama = 1000, 1000, 1 }, "yama ptrace_scope=1; run as root"},
		{"yama is not what keeps root away", func(a *Access) { a.Own, a.Yama = ptrace, 1 }, "AppArmor"},
		{"another user's", func(a *Access) { a.Me, a.Theirs = 1000, 33 }, "it runs as uid 33 and this as uid 1000; run as root"},
		{"root without the capability", func(*Access) {}, "CAP_SYS_PTRACE"},
		{"one's own that changed its user", func(a *Access) { a.Me, a.Theirs, a.FileOwner = 33, 33, 0 }, "process.dumpable"},
		{"one's own with more capabilities", func(a *Access) {
			a.Me, a.Theirs, a.FileOwner, a.TheirCaps = 33, 33, 33, Caps(CapKill)
		}, "it has CAP_KILL"},
		{"files of another user", func(a *Access) { a.Own, a.FileOwner = ptrace, 33 }, "CAP_DAC_OVERRIDE"},
		{"a filter", func(a *Access) { a.Own, a.Seccomp = ptrace, SeccompFilter }, "seccomp"},
		{"a user namespace", func(a *Access) { a.Own, a.UserNS = ptrace, true }, "user namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := base
			tt.edit(&a)
			if got := a.Advice(); !strings.Contains(got, tt.want) || strings.Contains(got, "\n") {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// dropEnv makes this test program drop its capabilities and show the result.
const dropEnv = "PROC_TEST_DROP"

func TestMain(m *testing.M) {
	if os.Getenv(dropEnv) != "" {
		os.Exit(dropMain())
	}
	os.Exit(m.Run())
}

func dropMain() int {
	if err := Drop(Tracing()); err != nil {
		_, _ = os.Stderr.WriteString(err.Error())
		return 1
	}
	out, err := exec.Command("cat", "/proc/self/status").Output()
	_, _ = os.Stdout.Write(out)
	if err != nil {
		return 1
	}
	return 0
}

func TestDroppedCapabilitiesDoNotComeBackByExec(t *testing.T) {
	st, err := OwnStatus()
	if err != nil {
		t.Fatal(err)
	}
	if own, _ := st.Caps("CapEff"); !own.Has(CapSysPtrace) {
		testphp.Missing(t, "CAP_SYS_PTRACE")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), dropEnv+"=1")
	out, err := c.CombinedOutput()
	if strings.Contains(string(out), "cgo") {
		t.Log("built with cgo, where nothing is given up; CGO_ENABLED=0 tests the rest")
		return
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	child := make(Status)
	for line := range strings.Lines(string(out)) {
		k, v, _ := strings.Cut(line, ":")
		child[k] = strings.TrimSpace(v)
	}
	eff, ok := child.Caps("CapEff")
	if more := eff &^ Tracing(); !ok || more != 0 || !eff.Has(CapSysPtrace) || child["NoNewPrivs"] != "1" {
		t.Errorf("a program that was started afterwards has %v, NoNewPrivs %s", eff.Names(), child["NoNewPrivs"])
	}
}
