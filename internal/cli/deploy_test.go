package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

const (
	unitFile      = "docs/deploy/phpwhy-watch.service"
	daemonsetFile = "docs/deploy/daemonset.yaml"
)

func deployed(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(testphp.Root(t), file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// kept are the capabilities that phpwhy watch keeps, on hosts that want most
// of them.
func kept() []string {
	names := (proc.Tracing() | proc.Caps(proc.CapPerfmon)).Names()
	slices.Sort(names)
	return names
}

func TestDeploymentsGrantWhatIsKept(t *testing.T) {
	m := regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindStringSubmatch(deployed(t, unitFile))
	if m == nil {
		t.Fatalf("%s has no CapabilityBoundingSet", unitFile)
	}
	unit := strings.Fields(m[1])
	slices.Sort(unit)
	if !slices.Equal(unit, kept()) {
		t.Errorf("%s grants %q, want %q", unitFile, unit, kept())
	}
	var pods []string
	for _, c := range containers(t) {
		for _, name := range c.SecurityContext.Capabilities.Add {
			pods = append(pods, "CAP_"+name)
		}
		if !slices.Equal(c.SecurityContext.Capabilities.Drop, []string{"ALL"}) {
			t.Errorf("%s drops %q", daemonsetFile, c.SecurityContext.Capabilities.Drop)
		}
	}
	slices.Sort(pods)
	if !slices.Equal(pods, kept()) {
		t.Errorf("%s grants %q, want %q", daemonsetFile, pods, kept())
	}
}

type container struct {
	Args            []string
	SecurityContext struct {
		Capabilities struct{ Drop, Add []string }
	} `yaml:"securityContext"`
}

// containers are those of the DaemonSet.
func containers(t *testing.T) []container {
	t.Helper()
	d := yaml.NewDecoder(strings.NewReader(deployed(t, daemonsetFile)))
	for {
		var doc struct {
			Kind string
			Spec struct {
				Template struct {
					Spec struct {
						HostPID    bool `yaml:"hostPID"`
						Containers []container
					}
				}
			}
		}
		if err := d.Decode(&doc); err != nil {
			t.Fatalf("%s: no DaemonSet: %v", daemonsetFile, err)
		}
		if doc.Kind == "DaemonSet" {
			if !doc.Spec.Template.Spec.HostPID {
				t.Errorf("%s: no hostPID", daemonsetFile)
			}
			return doc.Spec.Template.Spec.Containers
		}
	}
}

// The command lines in both must be ones that phpwhy accepts.
func TestDeploymentsRunWhatThereIs(t *testing.T) {
	m := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/phpwhy (.*)$`).FindStringSubmatch(deployed(t, unitFile))
	if m == nil {
		t.Fatalf("%s has no ExecStart", unitFile)
	}
	lines := [][]string{strings.Fields(m[1])}
	for _, c := range containers(t) {
		lines = append(lines, c.Args)
	}
	for _, args := range lines {
		args = slices.Clone(args)
		for i := range args {
			args[i] = strings.NewReplacer("/var/lib/phpwhy", t.TempDir(), "/captures", t.TempDir(), ":9127", ":0").Replace(args[i])
		}
		if r := run(t, append(args, "--pid", strconv.Itoa(os.Getpid()), "--for", "100ms")...); r.code != 0 || r.err != "" {
			t.Errorf("%q: exit code %d, %s", args, r.code, r.err)
		}
	}
}

func TestSystemdAcceptsTheUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		testphp.Missing(t, "systemd-analyze, of Debian's systemd")
	}
	unit := filepath.Join(t.TempDir(), filepath.Base(unitFile))
	// The program must exist.
	text := strings.ReplaceAll(deployed(t, unitFile), "/usr/local/bin/phpwhy", phpwhy(t))
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
