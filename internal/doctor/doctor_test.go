package doctor

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/phpwhy/phpwhy/internal/perf"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/report"
)

func TestMain(m *testing.M) {
	if ptrace.IsHelper(os.Args[1:]) {
		os.Exit(ptrace.HelperMain(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// fakeHost is a host whose settings are nobody's in the way.
func fakeHost(edit func(*facts)) *facts {
	two := 2
	f := &facts{Access: proc.Access{Own: proc.Tracing() | proc.Uprobes(), Yama: -1, Paranoid: 2, FileOwner: -1}, major: 6, minor: 1, mapFiles: true}
	f.host = report.DoctorHost{Kernel: "6.1.0", Paranoid: &two}
	edit(f)
	if f.host.Paranoid != nil {
		f.host.Paranoid = &f.Paranoid
	}
	return f
}

func TestARefusalIsExplainedBySettings(t *testing.T) {
	ptraceRefused := &proc.Error{PID: 1, What: "attach to process", Err: fmt.Errorf("%w: %w", proc.ErrPermission, syscall.EPERM)}
	perfRefused := fmt.Errorf("hardware breakpoint: %w", syscall.EACCES)
	unsupported := fmt.Errorf("hardware breakpoint: %w (%w)", ptrace.ErrUnsupported, syscall.EINVAL)
	for _, tt := range []struct {
		name   string
		host   func(*facts)
		engine string
		err    error
		want   string
	}{
		{"yama 3", func(f *facts) { f.Yama = 3 }, "int3", ptraceRefused, "ptrace_scope=3"},
		{"yama 2 for a user", func(f *facts) { f.Yama, f.Own, f.Me, f.Theirs = 2, 0, 1000, 1000 }, "int3", ptraceRefused, "ptrace_scope=2"},
		{"a filter", func(f *facts) { f.Seccomp = 2 }, "syscall", ptraceRefused, "seccomp"},
		{"a security module", func(*facts) {}, "int3", ptraceRefused, "AppArmor"},
		{"a profile", func(f *facts) { f.Profile = "docker-default (enforce)" }, "int3", &proc.Error{PID: 1, Err: proc.ErrPermission}, "apparmor=unconfined"},
		{"paranoid 3 without a capability", func(f *facts) { f.Paranoid, f.Own = 3, 0 }, "hwbp", perfRefused, "perf_event_paranoid is 3"},
		{"paranoid 4 says what to set", func(f *facts) { f.Paranoid, f.Own = 4, 0 }, "hwbp", perfRefused, "sysctl kernel.perf_event_paranoid=2"},
		{"paranoid 4 and a filter", func(f *facts) { f.Paranoid, f.Own, f.Seccomp = 4, 0, 2 }, "hwbp", perfRefused, "filter must allow perf_event_open"},
		{"perf events and a filter", func(f *facts) { f.Seccomp = 2 }, "hwbp", perfRefused, "seccomp=unconfined"},
		{"no capability for uprobes", func(f *facts) { f.Own = proc.Caps(proc.CapPerfmon) }, "uprobe", perfRefused, "CAP_SYS_ADMIN"},
		{"root of a user namespace", func(f *facts) { f.UserNS = true }, "uprobe", perfRefused, "user namespace"},
		{"a filter and uprobes", func(f *facts) { f.Seccomp = 2 }, "uprobe", &perf.Error{Err: fmt.Errorf("%w: %w", proc.ErrPermission, syscall.EPERM)}, "cap-add SYS_ADMIN"},
		{"lockdown and uprobes", func(f *facts) { f.host.Lockdown = "confidentiality" }, "uprobe", perfRefused, "lockdown=integrity"},
		{"an old kernel", func(f *facts) { f.major, f.minor = 5, 10 }, "hwbp", unsupported, "Linux 5.10 has no breakpoints"},
		{"a machine without debug registers", func(*facts) {}, "hwbp", unsupported, "no debug registers"},
		{"debug registers in use", func(*facts) {}, "hwbp", fmt.Errorf("x: %w", ptrace.ErrTooMany), "in use"},
		{"no uprobe events", func(*facts) {}, "uprobe", &perf.Error{What: "set uprobes", Err: perf.ErrNoUprobes}, "CONFIG_UPROBE_EVENTS"},
		{"nothing ever stops", func(*facts) {}, "hwbp", ptrace.ErrNotStopping, "nothing ever stopped"},
		{"another error", func(*facts) {}, "hwbp", errors.New("the moon"), "the moon"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := fakeHost(tt.host)
			e := f.judge(tt.engine, "", tt.err)
			if e.State != report.Fails || !strings.Contains(e.Why+" "+e.Remedy, tt.want) {
				t.Errorf("%+v, want %q", e, tt.want)
			}
		})
	}
}

func TestWhatWorksMayNotReachEveryProcess(t *testing.T) {
	for _, tt := range []struct {
		name  string
		host  func(*facts)
		state report.State
		want  string
	}{
		{"root", func(*facts) {}, report.Works, "3 times"},
		{"a user", func(f *facts) { f.Own, f.Me = 0, 1000 }, report.Partly, "uid 1000"},
		{"a user under yama 1", func(f *facts) { f.Own, f.Me, f.Yama = 0, 1000, 1 }, report.Partly, "attach -- CMD"},
		{"root under yama 1", func(f *facts) { f.Yama = 1 }, report.Works, "3 times"},
		{"a user namespace", func(f *facts) { f.UserNS = true }, report.Partly, "this user namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := fakeHost(tt.host).judge("hwbp", "3 times", nil)
			if e.State != tt.state || !strings.Contains(e.Why, tt.want) {
				t.Errorf("%+v, want %s with %q", e, tt.state, tt.want)
			}
		})
	}
}

func TestHostChecks(t *testing.T) {
	for _, tt := range []struct {
		name  string
		host  func(*facts)
		kept  error
		check string
		state report.State // "" wants no such row
		want  string
	}{
		{"all is well", func(*facts) {}, nil, "capabilities", report.Good, "all"},
		{"a user", func(f *facts) { f.Own = 0 }, nil, "capabilities", report.Note, "same user"},
		{"in a container", func(f *facts) { f.Own &^= proc.Caps(proc.CapSysPtrace); f.host.Container = "docker" }, nil, "capabilities", report.Note, "--cap-add SYS_PTRACE"},
		{"some missing", func(f *facts) { f.Own &^= proc.Caps(proc.CapCheckpointRestore) }, nil, "capabilities", report.Note, "CAP_CHECKPOINT_RESTORE"},
		{"dropped", func(*facts) {}, nil, "privileges", report.Good, "given up"},
		{"not dropped", func(*facts) {}, proc.ErrCgo, "privileges", report.Note, "CGO_ENABLED=0"},
		{"no yama", func(*facts) {}, nil, "ptrace_scope", report.Good, "no yama"},
		{"yama 1 and root", func(f *facts) { f.Yama = 1 }, nil, "ptrace_scope", report.Good, "1"},
		{"yama 1 and a user", func(f *facts) { f.Yama, f.Own = 1, 0 }, nil, "ptrace_scope", report.Note, "ptrace_scope=0"},
		{"yama 2 and a user", func(f *facts) { f.Yama, f.Own = 2, 0 }, nil, "ptrace_scope", report.Fails, "only root"},
		{"yama 3", func(f *facts) { f.Yama = 3 }, nil, "ptrace_scope", report.Fails, "can't be lowered"},
		{"paranoid 2", func(f *facts) { f.Own = 0 }, nil, "perf events", report.Good, "is 2"},
		{"paranoid 3 and root", func(f *facts) { f.Paranoid, f.Own = 3, f.Own|proc.Caps(proc.CapPerfmon) }, nil, "perf events", report.Good, "CAP_PERFMON overrules"},
		{"paranoid 3 and a user", func(f *facts) { f.Paranoid, f.Own = 3, 0 }, nil, "perf events", report.Note, "perf_event_paranoid=2"},
		{"no perf events", func(f *facts) { f.Paranoid, f.host.Paranoid = -1, nil }, nil, "perf events", report.Note, "can't be read"},
		{"an old kernel", func(f *facts) { f.major, f.minor = 4, 19 }, nil, "kernel", report.Note, "5.13"},
		{"a new kernel", func(*facts) {}, nil, "kernel", "", ""},
		{"hidepid and a user", func(f *facts) { f.host.HidePID, f.Own = "invisible", 0 }, nil, "hidepid", report.Note, "hidden"},
		{"hidepid and root", func(f *facts) { f.host.HidePID = "2" }, nil, "hidepid", report.Good, "hidepid=2"},
		{"lockdown", func(f *facts) { f.host.Lockdown = "confidentiality" }, nil, "lockdown", report.Note, "uprobe"},
		{"a filter", func(f *facts) { f.Seccomp = 2 }, nil, "seccomp", report.Note, "filter"},
		{"no map_files", func(f *facts) { f.mapFiles = false }, nil, "map_files", report.Note, "CAP_CHECKPOINT_RESTORE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := fakeHost(tt.host)
			var found *report.Check
			for _, c := range f.checks(tt.kept) {
				if c.Name == tt.check {
					found = &c
				}
			}
			switch {
			case tt.state == "" && found != nil:
				t.Errorf("a row that nobody needs: %+v", *found)
			case tt.state == "":
			case found == nil:
				t.Errorf("no row %s", tt.check)
			case found.State != tt.state || !strings.Contains(found.Text+" "+found.Remedy, tt.want):
				t.Errorf("%+v, want %s with %q", *found, tt.state, tt.want)
			}
		})
	}
}

func TestSettingsAreRead(t *testing.T) {
	mounts := "22 27 0:21 / /proc rw - proc proc rw,hidepid=%s\n23 27 0:22 / /proc/sys ro - proc proc ro,hidepid=2\n"
	for name, ok := range map[string]bool{
		"hidepid":                  hidePID([]byte(fmt.Sprintf(mounts, "invisible"))) == "invisible",
		"hidepid off":              hidePID([]byte(fmt.Sprintf(mounts, "off"))) == "",
		"a later mount":            hidePID([]byte(fmt.Sprintf(mounts, "2")+"30 22 0:30 / /proc rw - proc proc rw\n")) == "",
		"nonsense":                 hidePID([]byte("x\n - \n")) == "",
		"lockdown":                 chosen("none [integrity] confidentiality") == "integrity",
		"no lockdown":              chosen("") == "" && chosen("[x") == "",
		"a pod":                    containerOf("0::/kubepods.slice/kubepods-burstable.slice/x") == "kubepods",
		"Debian":                   distributionOf("NAME=\"x\"\nID=debian\n") == "debian",
		"Rocky":                    distributionOf("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n") == "fedora",
		"no distribution":          distributionOf("ID=mine") == "",
		"map_files have no zeros":  trimZeros("00400000-00401000") == "400000-401000",
		"the first engine of auto": auto([]report.EngineState{{Engine: "int3", State: report.Works}, {Engine: "hwbp", State: report.Partly}}) == "hwbp",
		"the second":               auto([]report.EngineState{{Engine: "int3", State: report.Works}, {Engine: "hwbp", State: report.Fails}}) == "int3",
		"none":                     auto([]report.EngineState{{Engine: "uprobe", State: report.Works}}) == "",
	} {
		if !ok {
			t.Error(name)
		}
	}
	if !handles(proc.Status{"SigCgt": "0000000000000010"}, syscall.SIGTRAP) || handles(proc.Status{"SigCgt": "0000000000000008"}, syscall.SIGTRAP) {
		t.Error("the handler for SIGTRAP")
	}
}

func TestExamineOfThisHostNeedsNoRights(t *testing.T) {
	d, err := Examine(t.Context(), Options{})
	if err != nil && !errors.Is(err, ErrNothing) {
		t.Fatal(err)
	}
	if len(d.Engines) != len(engines) || d.Host.Kernel == "" || len(d.Checks) == 0 || d.Target != nil {
		t.Errorf("%+v", d)
	}
}
