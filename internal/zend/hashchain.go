package zend

import (
	"encoding/binary"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// maxTables bounds the arrays that are looked at, maxTableStack the part of
	// the VM stack in which they are searched, in bytes.
	maxTables     = 64
	maxTableStack = 4 << 10
	// maxSlots bounds what is read of a table's hash part, in slots of 4
	// bytes, in so many pieces: keys that follow each other fill one piece and
	// leave another empty.
	maxSlots = 16 << 10
	pieces   = 16
	// leastKeys is how many keys a table must have to be of interest.
	leastKeys = 1 << 10
	noBucket  = ^uint32(0) // HT_INVALID_IDX
)

// Table is how well a hash table's keys are spread.
type Table struct {
	Keys int
	// PerSlot is the mean number of keys that share a slot, as far as the part
	// tells that was read: 1 to 2 when keys are spread well.
	PerSlot float64
}

// WorstTable finds the arrays that a thread has at hand, in its registers and
// in the innermost PHP frames, and returns the one whose keys share slots most.
// stack is the snapshot; the arrays are read through r, while the process may
// run: one that changes meanwhile is left out or comes out a little wrong. ok
// is false when there is no array with many keys.
func (th *Thread) WorstTable(r, stack remote.Reader, registers []remote.Addr) (worst Table, ok bool) {
	l := th.rt.Layout
	if l.PHP5 || l.Values.Missing != "" {
		return Table{}, false
	}
	seen := make(map[remote.Addr]bool)
	for _, at := range append(registers, th.arrays(stack)...) {
		if at == 0 || at%8 != 0 || seen[at] || len(seen) == maxTables {
			continue
		}
		seen[at] = true
		if t, good := l.table(r, at); good && (!ok || t.PerSlot > worst.PerSlot) {
			worst, ok = t, true
		}
	}
	return worst, ok
}

// arrays lists the arrays that the top of the VM stack has, also by reference.
func (th *Thread) arrays(stack remote.Reader) []remote.Addr {
	l := th.rt.Layout
	page, err := remote.Pointer(stack, th.eg+remote.Addr(l.EGStack))
	if err != nil {
		return nil
	}
	top, err := remote.Pointer(stack, th.eg+remote.Addr(l.EGStackTop))
	if err != nil {
		return nil
	}
	used, ok := top.Distance(page)
	if !ok || page == 0 {
		return nil
	}
	b := make([]byte, min(used, maxTableStack)&^(zvalSize-1))
	if err := remote.ReadFull(stack, b, top-remote.Addr(len(b))); err != nil {
		return nil
	}
	var out []remote.Addr
	for off := len(b) - zvalSize; off >= 0; off -= zvalSize {
		if b[off+zvalType] == zArray {
			out = append(out, remote.Addr(binary.LittleEndian.Uint64(b[off:])))
		}
	}
	return out
}

// table reads a zend_array's head and some of its hash part, which lies before
// its elements and holds the number of the first element of each slot's chain.
func (l *Layout) table(r remote.Reader, at remote.Addr) (Table, bool) {
	v := &l.Values
	// nTableMask lies behind the flags, nTableSize behind the counts, in every
	// version since 7.0.
	mask, size := v.ArrayFlags+4, v.ArrayCount+4
	b := make([]byte, size+4)
	if remote.ReadFull(r, b, at) != nil || b[countedType]&countedMask != zArray {
		return Table{}, false
	}
	u32 := func(off uint64) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	keys, used, cap := u32(v.ArrayCount), u32(v.ArrayUsed), u32(size)
	slots := -u32(mask) // HT_SIZE_TO_MASK
	if keys < leastKeys || keys > used || used > cap || cap&(cap-1) != 0 || slots&(slots-1) != 0 ||
		slots < cap || uint64(slots) > 2*uint64(cap) || b[v.ArrayFlags]&packedFlag != 0 {
		return Table{}, false
	}
	data := remote.Addr(binary.LittleEndian.Uint64(b[v.ArrayData:]))
	n := min(slots, maxSlots)
	length, every := n, slots
	if slots > maxSlots {
		length, every = maxSlots/pieces, slots/pieces
	}
	taken := 0
	hash := make([]byte, 4*length)
	for from := uint32(0); from < slots; from += every {
		back := remote.Addr(4 * (uint64(slots) - uint64(from)))
		if data < back || remote.ReadFull(r, hash, data-back) != nil {
			return Table{}, false
		}
		for i := 0; i < len(hash); i += 4 {
			switch first := binary.LittleEndian.Uint32(hash[i:]); {
			case first == noBucket:
			case first >= cap:
				return Table{}, false // it is no hash table, or it changes
			default:
				taken++
			}
		}
	}
	// Keys that should be in the part that was read.
	expected := float64(keys) * float64(n) / float64(slots)
	return Table{Keys: int(keys), PerSlot: expected / float64(max(1, taken))}, true
}
