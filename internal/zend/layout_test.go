package zend_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize/dwinfo"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// elfSections feeds dwinfo from debug/elf.
type elfSections struct{ m *modules }

func (s elfSections) Section(name string) ([]byte, error) {
	sec := s.m.file.Section(name)
	if sec == nil {
		return nil, nil
	}
	return sec.Data()
}

// dwarfTypes is zend.Types over dwinfo.
type dwarfTypes struct{ d *dwinfo.Data }

func (t dwarfTypes) Structs(names ...string) (map[string]zend.Struct, error) {
	found, err := t.d.Structs(names...)
	out := make(map[string]zend.Struct)
	for name, s := range found {
		z := zend.Struct{Size: s.Size, Members: make(zend.Members)}
		for path, m := range s.Members {
			z.Members[path] = [2]uint64{m.Offset, m.Size}
		}
		out[name] = z
	}
	return out, err
}

func dwarfOptions(t *testing.T, live *target.Live) zend.Options {
	t.Helper()
	m := load(t, live)
	d, err := dwinfo.Open(elfSections{m}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := m.options()
	o.Types = dwarfTypes{d}
	return o
}

func TestTheBuiltInTableEqualsDWARF(t *testing.T) {
	for _, dir := range testphp.Builds(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			b := testphp.Build{PHP: func(testing.TB) string { return filepath.Join(dir, "bin/php") }, Args: []string{"-n"}}
			live, byTable, _ := blocked(t, b, "testdata/nested.php")
			byDWARF, err := zend.Open(dwarfOptions(t, live), live.Mem)
			if err != nil {
				t.Fatal(err)
			}
			if byTable.Layout.Source != zend.Builtin || byDWARF.Layout.Source != zend.FromDWARF {
				t.Fatalf("the layouts come from %s and %s", byTable.Layout.Source, byDWARF.Layout.Source)
			}
			if d := cmp.Diff(byTable.Layout, byDWARF.Layout, cmpopts.IgnoreUnexported(zend.Layout{}), cmpopts.IgnoreFields(zend.Layout{}, "Source")); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestAVersionWithoutATableIsReadByItsDWARF has an engine claim to be a
// version that nobody knows yet.
func TestAVersionWithoutATableIsReadByItsDWARF(t *testing.T) {
	live, rt, _ := blocked(t, builds[2], "testdata/includes.php")
	want := thread(t, rt).Walk(live.Mem)
	o := dwarfOptions(t, live)
	lookup := o.Lookup
	o.Lookup = func(name string) (remote.Addr, uint64, bool) {
		if name == "module_registry" {
			return 0, 0, false
		}
		return lookup(name)
	}
	o.Rodata = func() ([]byte, error) { return []byte("X-Powered-By: PHP/8.77.1\x00"), nil }
	rt, err := zend.Open(o, live.Mem)
	if err != nil {
		t.Fatal(err)
	}
	if rt.Version != "8.77.1" || rt.Layout.Source != zend.FromDWARF {
		t.Errorf("version %s, layout from %s", rt.Version, rt.Layout.Source)
	}
	got := thread(t, rt).Walk(live.Mem)
	if d := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)); d != "" || got.Err != nil {
		t.Error(got.Err, d)
	}
}

// damaged is a snapshot with some bytes changed.
type damaged struct {
	r    remote.Reader
	at   remote.Addr
	with []byte
}

func (d damaged) ReadMemory(p []byte, at remote.Addr) (int, error) {
	n, err := d.r.ReadMemory(p, at)
	for i := range n {
		if off, ok := (at + remote.Addr(i)).Distance(d.at); ok && off < uint64(len(d.with)) {
			p[i] = d.with[off]
		}
	}
	return n, err
}

// FuzzWalk changes memory on the way of a walk through a real process's
// snapshot: it must end, keep names bounded, and say why it ended early.
func FuzzWalk(f *testing.F) {
	live, rt, _ := blocked(f, builds[0], "testdata/callbacks.php")
	th := thread(f, rt)
	snap := target.NewSnapshot(live.Mem)
	th.Prefetch(snap)
	snap.Freeze()
	good := th.Walk(snap)
	if good.Err != nil {
		f.Fatal(good.Err)
	}
	for i := range good.Frames {
		f.Add(uint8(i), false, uint16(rt.Layout.EDPrev), []byte{1, 2, 3, 4, 5, 6, 7, 8})
		f.Add(uint8(i), true, uint16(rt.Layout.FuncName), []byte{0, 0, 0, 0, 0, 0, 0, 0})
	}
	f.Fuzz(func(t *testing.T, frame uint8, fn bool, off uint16, with []byte) {
		fr := good.Frames[int(frame)%len(good.Frames)]
		at := fr.ExecuteData
		if fn {
			at = fr.Func
		}
		mem := damaged{snap, at + remote.Addr(off%512), with}
		th.Prefetch(mem)
		s := th.Walk(mem)
		if len(s.Frames) > zend.MaxFrames {
			t.Fatalf("%d frames", len(s.Frames))
		}
		for i := range s.Frames {
			if n := len(s.Frames[i].Function) + len(s.Frames[i].Class) + len(s.Frames[i].File); n > 3*(4096+len("…")) {
				t.Fatalf("frame %d has names of %d bytes", i, n)
			}
		}
		if len(s.Frames) < len(good.Frames) && s.Err == nil {
			// A frame may be cut off without an error only by a NULL in
			// prev_execute_data or func, which is how chains end.
			for _, b := range with {
				if b == 0 {
					return
				}
			}
			if !fn && len(with) >= 8 && off%512 == uint16(rt.Layout.EDPrev) {
				t.Fatalf("%d of %d frames, and no error", len(s.Frames), len(good.Frames))
			}
		}
	})
}

func TestUnknownVersionsAreNamed(t *testing.T) {
	live, _, _ := blocked(t, builds[0], "testdata/nested.php")
	m := load(t, live)
	o := m.options()
	lookup := o.Lookup
	o.Lookup = func(name string) (remote.Addr, uint64, bool) {
		if name == "module_registry" {
			return 0, 0, false
		}
		return lookup(name)
	}
	for version, want := range map[string]any{
		"X-Powered-By: PHP/9.9.1":  new(*zend.UnsupportedError),
		"X-Powered-By: PHP/5.5.31": new(*zend.UnsupportedError),
		"X-Powered-By: PHP/what":   nil,
	} {
		o.Rodata = func() ([]byte, error) { return []byte("x\x00" + version + "\x00"), nil }
		_, err := zend.Open(o, live.Mem)
		switch {
		case want == nil && !errors.Is(err, zend.ErrNoVersion):
			t.Errorf("%s: %v", version, err)
		case want != nil && !errors.As(err, want):
			t.Errorf("%s: %v", version, err)
		}
	}
	o.Rodata = func() ([]byte, error) { return nil, os.ErrPermission }
	if _, err := zend.Open(o, live.Mem); !errors.Is(err, zend.ErrNoVersion) {
		t.Errorf("nothing readable: %v", err)
	}
}

// TestAWrongLayoutIsNoticed reads an 8.2 as if it were another version: no
// frame of PHP code may come out of it.
func TestAWrongLayoutIsNoticed(t *testing.T) {
	for _, b := range builds {
		t.Run(b.Name, func(t *testing.T) {
			live, _, _ := blocked(t, b, "testdata/callbacks.php")
			o := load(t, live).options()
			lookup := o.Lookup
			o.Lookup = func(name string) (remote.Addr, uint64, bool) {
				if name == "module_registry" {
					return 0, 0, false
				}
				return lookup(name)
			}
			for _, version := range []string{"7.0.33", "7.1.9", "7.2.34", "7.3.33", "7.4.33", "8.0.24", "8.1.11", "8.4.24"} {
				o.Rodata = func() ([]byte, error) { return []byte("X-Powered-By: PHP/" + version), nil }
				rt, err := zend.Open(o, live.Mem)
				if err != nil {
					t.Fatal(err)
				}
				s := thread(t, rt).Walk(live.Mem)
				if s.Err == nil {
					t.Errorf("as %s: no error", version)
				}
				for i := range s.Frames {
					if f := &s.Frames[i]; !f.Internal {
						t.Errorf("as %s: %+v", version, *f)
					}
				}
				t.Logf("as %s: %v", version, s.Err)
			}
		})
	}
}
