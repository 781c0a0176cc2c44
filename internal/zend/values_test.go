package zend_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// entryOf is a value as the script describes it: name, kind, type, text.
type entryOf [4]string

func entriesOf(vs []zend.Value) []entryOf {
	out := make([]entryOf, len(vs))
	for i, v := range vs {
		out[i] = entryOf{v.Name, string(v.Kind), v.Type, v.Text}
	}
	slices.SortFunc(out, func(a, b entryOf) int { return strings.Compare(a[0], b[0]) })
	return out
}

// readValues does what an observation does: it copies while the process is
// stopped, and reads the copy.
func readValues(t testing.TB, live *target.Live, rt *zend.Runtime, w zend.Want) ([]zend.Frame, [][]zend.Value, *target.Snapshot) {
	t.Helper()
	th, snap := thread(t, rt), target.NewSnapshot(live.Mem)
	th.Prefetch(snap)
	th.PrefetchValues(snap, w)
	snap.Freeze()
	s := th.Walk(snap)
	if s.Err != nil {
		t.Fatal(s.Err)
	}
	vs, err := th.Values(snap, s.Frames, w)
	if err != nil {
		t.Fatal(err)
	}
	return s.Frames, vs, snap
}

func TestValuesAreWhatTheScriptSaysTheyAre(t *testing.T) {
	scripts, err := filepath.Glob("testdata/_values_*.php")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("%v, %v", scripts, err)
	}
	for _, b := range builds {
		for _, script := range scripts {
			t.Run(b.Name+"/"+filepath.Base(script), func(t *testing.T) {
				live, rt, line := blocked(t, b, script)
				var want [][]entryOf
				if err := json.Unmarshal([]byte(line), &want); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
				for _, w := range want {
					slices.SortFunc(w, func(a, b entryOf) int { return strings.Compare(a[0], b[0]) })
				}
				frames, vs, snap := readValues(t, live, rt, zend.Want{All: true})
				n := 0
				for i := range max(len(want), len(vs)) {
					if i >= len(want) || i >= len(vs) {
						t.Fatalf("%d frames, want %d", len(vs), len(want))
					}
					n += len(vs[i])
					if d := cmp.Diff(want[i], entriesOf(vs[i])); d != "" {
						t.Errorf("%s: %s", frames[i].Function, d)
					}
				}
				t.Logf("%d values of %d frames agree; %d reads, %d bytes", n, len(vs), snap.Reads(), snap.Size())
			})
		}
	}
}

// TestASnapshotHasAllThatValuesNeed compares with what the stopped process has.
func TestASnapshotHasAllThatValuesNeed(t *testing.T) {
	for _, b := range builds {
		t.Run(b.Name, func(t *testing.T) {
			live, rt, _ := blocked(t, b, "testdata/_values_main.php")
			frames, got, snap := readValues(t, live, rt, zend.Want{All: true})
			want, err := thread(t, rt).Values(live.Mem, frames, zend.Want{All: true})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)); d != "" {
				t.Error(d)
			}
			if n := snap.Reads(); n > 2*maxReads {
				t.Errorf("%d reads", n)
			}
		})
	}
}

func TestNoSecretIsShownUnderAnyName(t *testing.T) {
	for _, b := range builds {
		t.Run(b.Name, func(t *testing.T) {
			live, rt, _ := blocked(t, b, "testdata/_secret.php")
			frames, vs, _ := readValues(t, live, rt, zend.Want{All: true})
			got := make(map[string]string)
			for i := range frames {
				for _, v := range vs[i] {
					got[frames[i].Function+" "+v.Name] = v.Type + " " + v.Text
					if v.Redacted != (v.Text == zend.Redacted) {
						t.Errorf("%+v", v)
					}
				}
			}
			if all := fmt.Sprint(vs); strings.Contains(all, "horse") || strings.Contains(all, "marked") || strings.Contains(all, "hunter2") || strings.Contains(all, "123456789") {
				t.Error(all)
			}
			for name, want := range map[string]string{
				"open $first": "string [redacted]", "open $second": "int 2", "open $others": "array [redacted]", "open $others[1]": "string [redacted]",
				"open $password": "string [redacted]", "open $copy": "string [redacted]", "open $line": "string [redacted]", "open $apiKey": "int [redacted]",
				"open $monkey": `string "a banana"`, "open $tokens": "array [redacted]", "open $url": "string [redacted]", "open $dsn": "null [redacted]",
				"open $seen": "string [redacted]", "check $text": "string [redacted]", "check $list": "array array(1)",
				"preg_replace_callback $pattern": `string "/c/"`, "preg_replace_callback $subject": "string [redacted]", "{closure} $m": "array array(1)",
				"{closure} $text": "string [redacted]",
			} {
				if got[name] != want {
					t.Errorf("%s is %s, want %s", name, got[name], want)
				}
			}
		})
	}
}

// TestOnlyWantedVariablesAreRead reads one variable of one file's frames.
func TestOnlyWantedVariablesAreRead(t *testing.T) {
	live, rt, _ := blocked(t, builds[0], "testdata/_values_main.php")
	want := zend.Want{Of: func(f *zend.Frame) []string {
		if filepath.Base(f.File) == "_values_main.php" {
			return []string{"list", "n"}
		}
		return nil
	}}
	frames, vs, _ := readValues(t, live, rt, want)
	var got []string
	for i := range frames {
		if vs[i] == nil && filepath.Base(frames[i].File) == "_values_main.php" {
			t.Errorf("%s: nothing was read", frames[i].Function)
		}
		for _, v := range vs[i] {
			got = append(got, frames[i].Function+" "+v.Name+" "+v.Text)
		}
	}
	if d := cmp.Diff([]string{"byref $list array(3)", "extras $list array(3)", "run $n 1"}, got); d != "" {
		t.Error(d)
	}
}

// longest is a bound on what one value may be in a report: 64 bytes, each
// spelt with up to four, and what is said beside them.
const longest = 64*4 + 64 + 4*256

// FuzzValues changes memory that leads to values: whatever is there, reading
// ends, and what it gives is bounded and printable.
func FuzzValues(f *testing.F) {
	live, rt, _ := blocked(f, builds[0], "testdata/_values_main.php")
	th := thread(f, rt)
	w := zend.Want{All: true}
	snap := target.NewSnapshot(live.Mem)
	th.Prefetch(snap)
	th.PrefetchValues(snap, w)
	snap.Freeze()
	good := th.Walk(snap)
	if good.Err != nil {
		f.Fatal(good.Err)
	}
	slot := uint16(rt.Layout.EDSize)
	for i := range good.Frames {
		for typ := range 20 {
			f.Add(uint8(i), false, slot+8, []byte{byte(typ)})
		}
		f.Add(uint8(i), false, uint16(rt.Layout.Values.EDNumArgs), []byte{0xff, 0xff, 0xff, 0x7f})
		f.Add(uint8(i), false, uint16(rt.Layout.Values.EDSymbols), []byte{8, 0, 0, 0, 0, 0, 0, 0})
		for _, off := range []uint64{rt.Layout.Values.OpLastVar, rt.Layout.Values.OpTemps, rt.Layout.Values.FuncNumArgs, rt.Layout.Values.OpVars,
			rt.Layout.Values.FuncArgInfo, rt.Layout.Values.FuncAttributes, rt.Layout.FuncFlags} {
			f.Add(uint8(i), true, uint16(off), []byte{0xff, 0xff, 0xff, 0x00})
		}
	}
	f.Fuzz(func(t *testing.T, frame uint8, fn bool, off uint16, with []byte) {
		fr := good.Frames[int(frame)%len(good.Frames)]
		at := fr.ExecuteData
		if fn {
			at = fr.Func
		}
		mem := damaged{snap, at + remote.Addr(off%1024), with}
		vs, err := th.Values(mem, good.Frames, w)
		if err != nil || len(vs) != len(good.Frames) {
			t.Fatal(len(vs), err)
		}
		n := 0
		for _, f := range vs {
			n += len(f)
			for _, v := range f {
				if len(v.Text) > longest || len(v.Name) > 300 || strings.ContainsFunc(v.Text, unicode.IsControl) || !utf8.ValidString(v.Text) {
					t.Fatalf("%+v", v)
				}
			}
		}
		if n > 1024+2*len(good.Frames) {
			t.Fatalf("%d values", n)
		}
	})
}

// TestDamagedValuesAreToldOrLeftOut turns the first variable of each frame
// into pointers that lead nowhere, or to itself, of every type there may be.
func TestDamagedValuesAreToldOrLeftOut(t *testing.T) {
	live, rt, _ := blocked(t, builds[0], "testdata/_values_main.php")
	frames, good, snap := readValues(t, live, rt, zend.Want{All: true})
	th := thread(t, rt)
	slot := remote.Addr((rt.Layout.EDSize + 15) / 16 * 16)
	self := func(at remote.Addr) uint64 { return uint64(at) }
	for name, to := range map[string]func(at remote.Addr) uint64{
		"NULL": func(remote.Addr) uint64 { return 0 }, "nowhere": func(remote.Addr) uint64 { return 0xdead0000 }, "crooked": func(at remote.Addr) uint64 { return uint64(at) + 3 },
		"the top": func(remote.Addr) uint64 { return 1<<64 - 8 }, "itself": self,
	} {
		for typ := range byte(32) {
			for i := range frames {
				at := frames[i].ExecuteData + slot
				var with [16]byte
				for j := range 8 {
					with[j] = byte(to(at) >> (8 * j))
				}
				with[8] = typ
				vs, err := th.Values(damaged{snap, at, with[:]}, frames, zend.Want{All: true})
				if err != nil || len(vs[i]) != len(good[i]) {
					t.Fatalf("%s as type %d in %s: %d values, want %d; %v", name, typ, frames[i].Function, len(vs[i]), len(good[i]), err)
				}
			}
		}
	}
}

// BenchmarkPrefetchValues is what a stop costs on top for values.
func BenchmarkPrefetchValues(b *testing.B) {
	live, rt, _ := blocked(b, builds[0], "testdata/_values_main.php")
	th, snap := thread(b, rt), target.NewSnapshot(live.Mem)
	for b.Loop() {
		b.StopTimer()
		snap.Reset(live.Mem)
		th.Prefetch(snap)
		b.StartTimer()
		th.PrefetchValues(snap, zend.Want{All: true})
	}
	b.ReportMetric(float64(snap.Reads()), "reads")
	b.ReportMetric(float64(snap.Size()), "bytes")
}
