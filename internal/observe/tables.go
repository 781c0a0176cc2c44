package observe

import (
	"strings"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// maxTableLooks bounds how often an observation looks at hash tables: each
// reads some 100 KiB at most.
const maxTableLooks = 8

// tables remembers the hash table whose keys were spread worst, of those that
// samples found at work.
type tables struct {
	looks int
	worst zend.Table
	found bool
}

// see looks at a sample that found a hash table's code at work.
func (t *tables) see(s *session, z *walked, snap *target.Snapshot, st *stack.Stack) {
	if t.looks == maxTableLooks || !looksUp(st) {
		return
	}
	t.looks++
	var regs []remote.Addr
	for n := range remote.MaxRegs {
		if v, ok := snap.Regs.Get(n); ok {
			regs = append(regs, remote.Addr(v))
		}
	}
	if w, ok := z.th.WorstTable(s.live.Mem, snap, regs); ok && (!t.found || w.PerSlot > t.worst.PerSlot) {
		t.worst, t.found = w, true
	}
}

// looksUp reports whether one of the innermost functions is of zend_hash.c.
func looksUp(st *stack.Stack) bool {
	for i := range min(4, len(st.Frames)) {
		if f := &st.Frames[i]; f.Kind == stack.Native && strings.HasPrefix(strings.TrimPrefix(f.Function, "_"), "zend_hash_") {
			return true
		}
	}
	return false
}
