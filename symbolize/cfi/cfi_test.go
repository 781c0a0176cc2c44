package cfi

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// libc is a file with all the irregular entries there are: signal frames,
// expressions, hand-written assembly.
const libc = "/lib/x86_64-linux-gnu/libc.so.6"

func ehFrame(t testing.TB, path string, table bool) *Section {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := func(name string) ([]byte, uint64) {
		s := f.Section(name)
		if s == nil {
			t.Fatalf("%s has no %s", path, name)
		}
		b, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		return b, s.Addr
	}
	b, addr := data(".eh_frame")
	if !table {
		return NewEH(b, addr, nil, 0)
	}
	h, haddr := data(".eh_frame_hdr")
	s := NewEH(b, addr, h, haddr)
	if s.hdr == nil {
		t.Fatal("the search table was refused")
	}
	return s
}

var regName = map[string]int{"rax": 0, "rdx": 1, "rcx": 2, "rbx": 3, "rsi": 4, "rdi": 5, "rbp": 6, "rsp": 7,
	"r8": 8, "r9": 9, "r10": 10, "r11": 11, "r12": 12, "r13": 13, "r14": 14, "r15": 15, "ra": 16}

// interpreted is one row as readelf prints it.
type interpreted struct {
	pc   uint64
	cfa  string
	regs map[int]string
}

// readelfRows are the rows that readelf computes for a file.
func readelfRows(t *testing.T, path string) []interpreted {
	t.Helper()
	if _, err := exec.LookPath("readelf"); err != nil {
		t.Fatal("readelf is missing (package binutils)")
	}
	out, err := exec.Command("readelf", "-W", "--debug-dump=frames-interp", path).Output()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	var rows []interpreted
	var cols []string
	row := regexp.MustCompile(`^[0-9a-f]{16} `)
	inFDE := false
	sc := bufio.NewScanner(bytes.NewReader(out))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		w := strings.Fields(line)
		switch {
		case strings.Contains(line, " CIE "):
			inFDE = false
		case strings.Contains(line, " FDE "):
			inFDE = true
		case len(w) > 1 && w[0] == "LOC":
			cols = w[2:]
		case inFDE && row.MatchString(line) && len(w) == len(cols)+2:
			pc, err := strconv.ParseUint(w[0], 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			r := interpreted{pc: pc, cfa: w[1], regs: map[int]string{}}
			for i, c := range cols {
				if n, ok := regName[c]; ok {
					r.regs[n] = w[i+2]
				}
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// notation writes a rule as readelf does.
func notation(r Rule) string {
	switch r.Kind {
	case Unspecified, Undefined:
		return "u"
	case SameValue:
		return "s"
	case Offset:
		return fmt.Sprintf("c%+d", r.N)
	case ValOffset:
		return fmt.Sprintf("v%+d", r.N)
	case Expression:
		return "exp"
	case ValExpression:
		return "vexp"
	}
	return "?"
}

func TestRowsAgreeWithReadelf(t *testing.T) {
	for _, table := range []bool{true, false} {
		t.Run(fmt.Sprintf("search table %v", table), func(t *testing.T) {
			s := ehFrame(t, libc, table)
			rows := readelfRows(t, libc)
			if len(rows) < 5000 {
				t.Fatalf("readelf printed %d rows only", len(rows))
			}
			bad := 0
			for i, want := range rows {
				// Rows at one address: the last one holds.
				if i+1 < len(rows) && rows[i+1].pc == want.pc {
					continue
				}
				got, err := s.Row(want.pc)
				if err != nil {
					t.Errorf("%#x: %v", want.pc, err)
					bad++
				} else if d := differs(got, want); d != "" {
					t.Errorf("%#x: %s", want.pc, d)
					bad++
				}
				if bad > 10 {
					t.Fatal("and more")
				}
			}
			t.Logf("%d rows agree", len(rows))
		})
	}
}

func differs(got Row, want interpreted) string {
	cfa := "exp"
	if got.CFAExpr == nil {
		for name, n := range regName {
			if n == got.CFAReg {
				cfa = fmt.Sprintf("%s%+d", name, got.CFAOffset)
			}
		}
	}
	if cfa != want.cfa {
		return fmt.Sprintf("CFA %s, readelf says %s", cfa, want.cfa)
	}
	for n, w := range want.regs {
		if g := notation(got.Regs[n]); g != w {
			return fmt.Sprintf("register %d: %s, readelf says %s", n, g, w)
		}
	}
	return ""
}

func TestAnAddressOutsideEveryFunctionHasNoRow(t *testing.T) {
	for _, table := range []bool{true, false} {
		s := ehFrame(t, libc, table)
		for _, pc := range []uint64{0, 1, 1 << 40, ^uint64(0)} {
			if _, err := s.Row(pc); !errors.Is(err, ErrNoEntry) {
				t.Errorf("%#x: %v", pc, err)
			}
		}
	}
}

// registers is a Machine whose memory holds its own addresses.
type registers map[int]uint64

func (r registers) Register(n int) (uint64, bool) { v, ok := r[n]; return v, ok }

func (r registers) ReadUint(at uint64, size int) (uint64, error) {
	if at == 0xbad {
		return 0, errors.New("unmapped")
	}
	return at & (1<<(8*uint(size)-1) - 1), nil
}

func TestEval(t *testing.T) {
	for _, tt := range []struct {
		name string
		expr []byte
		want uint64
		ok   bool
	}{
		{"the PLT's rule: rsp+8+((rip&15)>=11)<<3", []byte{0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22}, 0x1010, true},
		{"initial value", []byte{}, 99, true},
		{"dereference", []byte{0x77, 0, 0x06}, 0x1000, true},
		{"dereference of nothing mapped", []byte{0x0a, 0xad, 0x0b, 0x06}, 0, false},
		{"division by zero", []byte{0x31, 0x30, 0x1b}, 0, false},
		{"unknown register", []byte{0x75, 0}, 0, false},
		{"empty stack", []byte{0x13, 0x13}, 0, false},
		{"endless loop", []byte{0x2f, 0xfd, 0xff}, 0, false},
		{"jump out", []byte{0x2f, 0xff, 0x7f}, 0, false},
		{"cut off", []byte{0x0e, 1, 2}, 0, false},
		{"swap and rotate", []byte{0x31, 0x32, 0x33, 0x17, 0x16, 0x1c}, 1, true}, // 1 2 3 -> 3 1 2 -> 3 2 1 -> 2-1
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Eval(tt.expr, registers{7: 0x1000, 16: 0x40b}, 99)
			if (err == nil) != tt.ok || tt.ok && got != tt.want {
				t.Errorf("got %#x, %v; want %#x, %v", got, err, tt.want, tt.ok)
			}
			if err != nil && !errors.Is(err, ErrExpression) {
				t.Errorf("%v is no ErrExpression", err)
			}
		})
	}
}

func TestRestoreReturnsToTheRuleOfTheCIE(t *testing.T) {
	m := machine{cie: &cie{codeAlign: 1, dataAlign: -8}, pc: 100}
	if err := m.run([]byte{cfaOffset | 16, 1}); err != nil {
		t.Fatal(err)
	}
	m.initial, m.inFDE = m.row.Regs, true
	if err := m.run([]byte{cfaUndefined, 16, cfaRestore | 16}); err != nil {
		t.Fatal(err)
	}
	if got := m.row.Regs[16]; got.Kind != Offset || got.N != -8 {
		t.Errorf("got %+v, want the CIE's offset -8", got)
	}
}

func TestReturnAddressesAreSignedBetweenTwoNegations(t *testing.T) {
	for _, tt := range []struct {
		name    string
		program []byte
		want    bool
	}{
		{"never", []byte{cfaNop}, false},
		{"since the first", []byte{cfaAARCH64NegateRA}, true},
		{"till the second", []byte{cfaAARCH64NegateRA, cfaAARCH64NegateRA}, false},
		{"by the form with a program counter", []byte{cfaAARCH64NegateRAPC}, true},
		{"as remembered", []byte{cfaRememberState, cfaAARCH64NegateRA, cfaRestoreState}, false},
		{"behind the address", []byte{cfaAdvanceLoc | 60, cfaAdvanceLoc | 60, cfaAARCH64NegateRA}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := machine{cie: &cie{codeAlign: 1, dataAlign: -8}, pc: 100, inFDE: true}
			if err := m.run(tt.program); err != nil || m.row.RASigned != tt.want {
				t.Errorf("%v, %v", m.row.RASigned, err)
			}
		})
	}
}

// FuzzRow holds that no bytes make the decoder panic or run on, and that a
// row that it returns locates the frame.
func FuzzRow(f *testing.F) {
	b, err := elf.Open(libc)
	if err != nil {
		f.Fatal(err)
	}
	defer b.Close()
	whole, err := b.Section(".eh_frame").Data()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:600], uint64(0x1000), uint64(0x26000))
	f.Add(whole[2000:4000], uint64(0x1000), uint64(0x28000))
	f.Fuzz(func(t *testing.T, data []byte, addr, pc uint64) {
		for _, s := range []*Section{NewEH(data, addr, nil, 0), NewEH(data, addr, data, addr), NewDebug(data)} {
			pcs := []uint64{pc}
			s.once.Do(s.buildIndex)
			for _, x := range s.index[:min(len(s.index), 20)] {
				pcs = append(pcs, x.low, x.high-1)
			}
			for _, pc := range pcs {
				r, err := s.Row(pc)
				if err != nil {
					continue
				}
				if r.CFAReg < 0 && r.CFAExpr == nil {
					t.Fatalf("row for %#x has no CFA", pc)
				}
				if r.CFAExpr != nil {
					_, _ = Eval(r.CFAExpr, registers{7: 8})
				}
			}
		}
	})
}
