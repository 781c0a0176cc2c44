package symbolize_test

import (
	"math/rand/v2"
	"testing"

	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// TestAStackOfRandomCodeAddressesLeadsNowhere fills a stack with addresses of
// real code: none of them is a chain of calls, and the search for a return
// address must not make one up.
func TestAStackOfRandomCodeAddressesLeadsNowhere(t *testing.T) {
	_, maps := image(t)
	const jit, sp = remote.Addr(0x10000), remote.Addr(0x7000)
	var code []remote.Mapping
	for _, m := range maps {
		if m.Exec && m.Inode != 0 {
			code = append(code, m)
		}
	}
	maps = append(remote.Mappings{{Start: jit, End: jit + 0x1000, Exec: true}}, maps...)
	img := symbolize.NewImage(maps, open, nil, symbolize.NewCache())
	rnd := rand.New(rand.NewPCG(1, 2))
	const rounds = 500
	invented := 0
	for range rounds {
		words := make([]uint64, 1024)
		for i := range words {
			m := code[rnd.IntN(len(code))]
			words[i] = uint64(m.Start) + rnd.Uint64N(uint64(m.End-m.Start))
		}
		regs := remote.Regs{Arch: remote.AMD64}
		regs.SetPC(jit + 0x10)
		regs.SetSP(sp)
		if w := img.Unwind(regs, fakeStack(sp, words...)); w.End == symbolize.Root {
			invented++
		}
	}
	if invented > rounds/100 {
		t.Errorf("%d of %d stacks of random words were believed", invented, rounds)
	}
	t.Logf("%d of %d stacks of random words were believed", invented, rounds)
}
