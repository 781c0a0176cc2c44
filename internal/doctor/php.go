package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/report"
)

// php adds what was found out about PHP and its files.
func (s *subject) php(err error) {
	t, in := s.t, &s.in
	t.PHP, t.SAPI, t.ZTS, t.Debug = in.Target.PHPVersion, in.Target.SAPI, in.Target.ZTS, in.Target.DebugBuild
	t.Symbols, t.Layout, t.Libc = in.Target.Symbols, in.Target.Layout, in.Libc.Kind
	t.JIT, t.Xdebug = in.JIT, in.Xdebug
	t.Deleted = append(t.Deleted, in.Deleted...)
	if err != nil {
		if !errors.Is(err, proc.ErrPermission) || s.denied == nil { // said already
			s.fail("php", err)
		}
		return
	}
	text := "PHP " + t.PHP
	if t.SAPI != "" {
		text += " (" + t.SAPI + ")"
	}
	if t.ZTS {
		text += ", thread-safe"
	}
	if t.Debug {
		text += ", debug build"
	}
	if in.Engine != filepath.Base(t.Exe) {
		text += ", in " + in.Engine
	}
	s.check("php", report.Good, text, "")
	s.symbols()
	s.libc()
	if len(t.Deleted) > 0 {
		s.check("upgrade", report.Note, "it runs files that were deleted or replaced since: "+strings.Join(t.Deleted, ", "),
			"restart the worker when it can be spared; debug packages of today's version do not fit it")
	}
	if t.Xdebug {
		s.check("xdebug", report.Note, "loaded: PHP calls nest in the C stack, which makes stacks long and a stop longer", "")
	}
	if t.JIT {
		s.check("jit", report.Note, "opcache has a JIT buffer: a line in JIT code may be its neighbour's; the stack says where", "")
	}
}

func (s *subject) symbols() {
	t := s.t
	layout := "PHP's structs are read by DWARF"
	if t.Layout != "dwarf" {
		layout = "PHP's structs by the built-in table of this version"
	}
	switch t.Symbols {
	case "dwarf":
		s.check("symbols", report.Good, "DWARF: functions, inlined calls and lines; "+layout, "")
	case "symtab":
		s.check("symbols", report.Good, "symbol table, no lines of C code; "+layout, "")
	default:
		s.check("symbols", report.Good, "stripped: exported functions only, static ones show as ??; PHP frames are complete; "+layout,
			s.debugPackage(filepath.Base(t.Exe)))
	}
}

func (s *subject) libc() {
	l := &s.in.Libc
	switch {
	case l.Name == "":
		s.check("libc", report.Note, "none of its own (a static program): no function to stop at, samples only", "")
		return
	case len(l.Found) == 0:
		s.check("libc", report.Note, fmt.Sprintf("%s (%s) exports none of %s: samples only", l.Kind, l.Name, strings.Join(l.Missing, ", ")), "")
		return
	}
	text := fmt.Sprintf("%s (%s), stops at %s", l.Kind, l.Name, strings.Join(l.Found, " and "))
	if len(l.Missing) > 0 {
		text += "; it has no " + strings.Join(l.Missing, ", ")
	}
	remedy := ""
	if l.Symbols != "dwarf" {
		text += "; no debug information, so no arguments and lines in it"
		remedy = s.libcPackage(l.Kind)
	}
	s.check("libc", report.Good, text, remedy)
}

// distribution is ID and ID_LIKE of the worker's own os-release.
func (s *subject) distribution() string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/etc/os-release", s.t.PID))
	if err != nil {
		return ""
	}
	return distributionOf(string(b[:min(len(b), maxSetting)]))
}

func distributionOf(release string) string {
	ids := ""
	for line := range strings.Lines(release) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		if k == "ID" || k == "ID_LIKE" {
			ids += " " + strings.Trim(v, `"'`)
		}
	}
	for _, family := range []string{"debian", "ubuntu", "alpine", "fedora", "rhel"} {
		if strings.Contains(ids, family) {
			return family
		}
	}
	return ""
}

func (s *subject) libcPackage(kind string) string {
	switch d := s.distribution(); {
	case kind == "musl" && d == "alpine":
		return "install musl-dbg"
	case d == "debian", d == "ubuntu":
		return "install libc6-dbg" + s.here()
	case d == "fedora", d == "rhel":
		return "debuginfo-install glibc" + s.here()
	}
	return "install its debug package" + s.here()
}

// debugPackage names the package that holds a program's debug information.
func (s *subject) debugPackage(exe string) string {
	version := strings.TrimLeft(exe, "abcdefghijklmnopqrstuvwxyz-")
	sapi := map[string]string{"php": "cli", "php-fpm": "fpm", "php-cgi": "cgi"}[strings.TrimSuffix(exe, version)]
	switch d := s.distribution(); {
	case (d == "debian" || d == "ubuntu") && version != "" && sapi != "":
		return fmt.Sprintf("for static functions install php%s-%s-dbgsym%s", version, sapi, s.here())
	case d == "fedora" || d == "rhel":
		return "for static functions: debuginfo-install php" + s.here()
	}
	return "for static functions install the debug symbols of this build" + s.here()
}

// here tells where debug files belong.
func (s *subject) here() string {
	for _, ns := range s.t.OtherNS {
		if ns == "mnt" {
			return " where phpwhy runs, of the worker's own version"
		}
	}
	return ""
}
