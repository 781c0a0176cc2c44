package ptrace

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/internal/ptrace/x86"
)

// Each emulation must leave what the processor leaves: registers, the status
// flags, and the word that a push stores.
func TestEmulationAgreesWithTheProcessor(t *testing.T) {
	codes := map[string][]byte{
		"endbr64": {0xf3, 0x0f, 0x1e, 0xfa}, "nop": {0x90}, "nopw": {0x66, 0x0f, 0x1f, 0x44, 0, 0}, "nopl": {0x0f, 0x1f, 0x40, 0},
		"sub $0x58,%rsp": {0x48, 0x83, 0xec, 0x58}, "sub $0x1038,%rsp": {0x48, 0x81, 0xec, 0x38, 0x10, 0, 0},
		"add $-8,%rsp": {0x48, 0x83, 0xc4, 0xf8}, "sub %esi,%edi": {0x29, 0xf7}, "sub %rsi,%rdi": {0x48, 0x29, 0xf7},
		"add %rsi,%rdi": {0x48, 0x01, 0xf7}, "add %esi,%edi": {0x01, 0xf7}, "cmp %rsi,%rdi": {0x48, 0x39, 0xf7},
		"cmp $-1,%edi": {0x83, 0xff, 0xff}, "cmp $-1,%rdi": {0x48, 0x83, 0xff, 0xff}, "cmp %edi,%esi": {0x39, 0xfe},
		"mov %ecx,%r10d": {0x41, 0x89, 0xca}, "mov %rcx,%r10": {0x49, 0x89, 0xca}, "mov $12,%eax": {0xb8, 12, 0, 0, 0},
		"mov $-1,%rax": {0x48, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff}, "movabs": {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 0x88},
		"mov %rsp,%rbp": {0x48, 0x89, 0xe5}, "xor %eax,%eax": {0x31, 0xc0}, "xor %r9d,%r8d": {0x45, 0x31, 0xc8},
		"xor %rsi,%rdi": {0x48, 0x31, 0xf7}, "test $0xfff,%r9d": {0x41, 0xf7, 0xc1, 0xff, 0x0f, 0, 0},
		"test %rdi,%rdi": {0x48, 0x85, 0xff}, "test %edi,%edi": {0x85, 0xff}, "and $-16,%rsp": {0x48, 0x83, 0xe4, 0xf0},
		"and %esi,%edi": {0x21, 0xf7}, "or %rsi,%rdi": {0x48, 0x09, 0xf7}, "or $-1,%eax": {0x83, 0xc8, 0xff},
		"push %rbp": {0x55}, "push %r12": {0x41, 0x54}, "push %rsp": {0x54}, "push $-2": {0x6a, 0xfe},
		"push $0x12345678": {0x68, 0x78, 0x56, 0x34, 0x12}, "lea 8(%rsp),%r10": {0x4c, 0x8d, 0x54, 0x24, 0x08},
		"lea -1(%rdi),%eax":           {0x8d, 0x47, 0xff},
		"lea 0x10(%rdi,%rsi,8),%rax":  {0x48, 0x8d, 0x44, 0xf7, 0x10},
		"lea 0x0(,%rsi,4),%rax":       {0x48, 0x8d, 0x04, 0xb5, 0, 0, 0, 0},
		"lea -0x7fffffff(%r12),%r13d": {0x45, 0x8d, 0xac, 0x24, 0x01, 0, 0, 0x80},
	}
	w := start(t, 1, "idle")
	text := uint64(at(t, w.pid, "mremap")[0].Addr)
	err := onThread(func() (err error) {
		s := newSession(w.pid)
		defer func() { err = joinNil(err, s.release()) }()
		if err := s.attach(); err != nil {
			return err
		}
		if err := s.stopAll(); err != nil {
			return err
		}
		th := s.usable()
		var saved userRegs
		if err := getRegs(th.tid, &saved); err != nil {
			return err
		}
		// The system call it waits in must not restart over our registers.
		orig := make([]byte, 64)
		if _, err := s.mem.ReadAt(orig, int64(text)); err != nil {
			return err
		}
		defer func() {
			_, werr := s.mem.WriteAt(orig, int64(text))
			err = joinNil(err, werr, setRegs(th.tid, &saved))
		}()
		for name, code := range codes {
			in, err := x86.Decode(append(append([]byte{}, code...), 0x90, 0x90))
			if err != nil || !in.Emulated() || in.Len != len(code) {
				t.Errorf("%s: %v, %v", name, in, err)
				continue
			}
			if _, err := s.mem.WriteAt(append(append([]byte{}, code...), 0x90, 0x90), int64(text)); err != nil {
				return err
			}
			for round := range 40 {
				r := randomRegs(&saved, text, round)
				if err := compareStep(t, s, th, name, in, r); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.mustBeClean()
}

func joinNil(errs ...error) error {
	for _, e := range errs {
		if e != nil {
			return e
		}
	}
	return nil
}

func randomRegs(saved *userRegs, text uint64, round int) userRegs {
	edge := []uint64{0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 63, 1<<63 - 1, ^uint64(0), 8, 16}
	pick := func() uint64 {
		if rand.IntN(2) == 0 {
			return edge[rand.IntN(len(edge))]
		}
		return rand.Uint64()
	}
	r := *saved
	for _, p := range []*uint64{&r.Rax, &r.Rbx, &r.Rcx, &r.Rdx, &r.Rsi, &r.Rdi, &r.Rbp, &r.R8, &r.R9, &r.R10, &r.R11, &r.R12, &r.R13, &r.R14, &r.R15} {
		*p = pick()
	}
	if round%4 == 0 {
		r.Rsi = r.Rdi
	}
	r.Rsp -= uint64(256 + rand.IntN(256))
	r.Rip, r.Orig_rax = text, ^uint64(0)
	r.Eflags ^= rand.Uint64() & x86.StatusFlags
	return r
}

func compareStep(t *testing.T, s *session, th *tracee, name string, in *x86.Insn, before userRegs) error {
	t.Helper()
	want := before
	var at, stored uint64
	if err := in.Emulate(&want, func(a, v uint64) error { at, stored = a, v; return nil }); err != nil {
		return err
	}
	if err := setRegs(th.tid, &before); err != nil {
		return err
	}
	if err := step(th.tid, 0); err != nil {
		return err
	}
	if ev, err := s.nextOf(th); err != nil || ev.sig() != int(unix.SIGTRAP) {
		t.Fatalf("%s: %+v, %v", name, ev, err)
	}
	var got userRegs
	if err := getRegs(th.tid, &got); err != nil {
		return err
	}
	got.Eflags &= x86.StatusFlags
	want.Eflags &= x86.StatusFlags
	got.Orig_rax = want.Orig_rax
	if got != want {
		t.Errorf("%s:\nbefore %+v\ngot    %+v\nwant   %+v", name, before, got, want)
	}
	if at != 0 {
		var b [8]byte
		if _, err := s.mem.ReadAt(b[:], int64(at)); err != nil {
			return err
		}
		if v := binary.LittleEndian.Uint64(b[:]); v != stored {
			t.Errorf("%s stores %#x, emulated %#x", name, v, stored)
		}
	}
	return nil
}
