package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// sickHost is a container without rights, and a worker in it with a hostile name.
func sickHost() *Doctor {
	one, three := 1, 3
	const remedy = "run as root or with CAP_SYS_PTRACE, or: sysctl kernel.yama.ptrace_scope=0"
	return &Doctor{
		Schema: DoctorSchema,
		Host:   DoctorHost{Kernel: "6.1.0-18-amd64", Arch: "amd64", UID: 33, User: "www-data", Capabilities: []string{}, Seccomp: 2, Container: "docker", Yama: &one, Paranoid: &three},
		Auto:   "int3",
		Engines: []EngineState{
			{Engine: "hwbp", State: Fails, Why: "perf_event_paranoid is 3", Remedy: "run as root or with CAP_PERFMON"},
			{Engine: "int3", State: Partly, Why: "only commands it starts (attach -- CMD): yama ptrace_scope=1", Remedy: remedy},
			{Engine: "syscall", State: Partly, Why: "only commands it starts", Remedy: remedy},
			{Engine: "no-stop", State: Works, Why: "memory can be read"},
		},
		Checks: []Check{
			{Name: "capabilities", State: Note, Text: "none: only processes of the same user, as far as settings allow", Remedy: "run as root"},
			{Name: "perf events", State: Good, Text: "perf_event_paranoid is 2"},
		},
		Target: &DoctorTarget{
			PID: 42, Cmdline: "php-fpm: pool \x1b[31mwww\n", Exe: "/usr/sbin/php-fpm8.2", UID: 33, State: "S", OtherNS: []string{"mnt"}, PHP: "8.2.36",
			Deleted: []string{"/tmp/\u202e"}, Auto: "",
			Engines: []EngineState{{Engine: "hwbp", State: Fails, Why: "traced by 7 (\"\x1b]0;x\a\")"}},
			Checks:  []Check{{Name: "upgrade", State: Note, Text: "it runs files that were deleted: /tmp/\u202e"}},
		},
	}
}

func TestDoctorReadsAsInTheGoldenFiles(t *testing.T) {
	for name, o := range map[string]TextOptions{"doctor.txt": {}, "doctor-colour.txt": {Color: true, Width: 60}} {
		var b bytes.Buffer
		if err := DoctorText(&b, sickHost(), o); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.Bytes())
		for line := range strings.Lines(b.String()) {
			if line = strings.TrimSuffix(line, "\n"); !o.Color && (utf8.RuneCountInString(line) > doctorWidth || line != strings.TrimRight(line, " ")) {
				t.Errorf("%d columns: %q", utf8.RuneCountInString(line), line)
			}
		}
	}
}

func TestDoctorsJSONFitsItsSchema(t *testing.T) {
	var v validator
	if err := json.Unmarshal(DoctorJSONSchema(), &v.root); err != nil {
		t.Fatal(err)
	}
	alone := sickHost()
	alone.Target, alone.Host.Yama = nil, nil
	for name, d := range map[string]*Doctor{"with a process": sickHost(), "alone": alone} {
		var b bytes.Buffer
		if err := DoctorJSON(&b, d); err != nil {
			t.Fatal(err)
		}
		if s := b.String(); strings.ContainsAny(strings.TrimSuffix(s, "\n"), "\x1b\u202e\n") {
			t.Errorf("%s: control characters: %q", name, s)
		}
		var doc any
		if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		if err := v.check("doctor", v.root, doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		delete(doc.(map[string]any)["host"].(map[string]any), "kernel")
		if err := v.check("doctor", v.root, doc); err == nil {
			t.Errorf("%s: the schema does not miss a field", name)
		}
	}
}
