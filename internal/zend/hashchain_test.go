package zend

import (
	"encoding/binary"
	"testing"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// hashTable lays out a zend_array of PHP 8.2 with its hash part: keys[i] is
// the key of element i.
func hashTable(capacity uint32, keys []uint64) remote.ReaderFunc {
	const at, data = remote.Addr(0x10000), remote.Addr(0x40000000)
	slots := 2 * capacity
	head := make([]byte, 56)
	put := func(off int, v uint32) { binary.LittleEndian.PutUint32(head[off:], v) }
	put(0, 1)
	put(4, zArray)
	put(12, -slots)
	binary.LittleEndian.PutUint64(head[16:], uint64(data))
	put(24, uint32(len(keys)))
	put(28, uint32(len(keys)))
	put(32, capacity)
	hash := make([]byte, 4*slots)
	for i := range hash {
		hash[i] = 0xff
	}
	for i, k := range keys {
		slot := uint32(k) | -slots // nIndex = h | ht->nTableMask, counted from the elements down
		binary.LittleEndian.PutUint32(hash[len(hash)-4*int(-slot):], uint32(i))
	}
	return func(p []byte, from remote.Addr) (int, error) {
		for start, mem := range map[remote.Addr][]byte{at: head, data - remote.Addr(len(hash)): hash} {
			if from >= start && from+remote.Addr(len(p)) <= start+remote.Addr(len(mem)) {
				return copy(p, mem[from-start:]), nil
			}
		}
		return 0, &remote.ReadError{At: from, Want: len(p)}
	}
}

func TestATableTellsHowItsKeysAreSpread(t *testing.T) {
	series := func(n int, key func(i uint64) uint64) []uint64 {
		keys := make([]uint64, n)
		for i := range keys {
			keys[i] = key(uint64(i))
		}
		return keys
	}
	for _, c := range []struct {
		name        string
		keys        []uint64
		least, most float64
		tooFew      bool
	}{
		{"numbers that follow each other", series(100_000, func(i uint64) uint64 { return i }), 0.8, 1.3, false},
		{"such from some number on", series(100_000, func(i uint64) uint64 { return 70_000_000 + i }), 0.8, 1.3, false},
		{"hashes", series(100_000, func(i uint64) uint64 { return i * 0x9e3779b97f4a7c15 >> 17 }), 1, 2.5, false},
		{"every 16th number", series(100_000, func(i uint64) uint64 { return 16 * i }), 4, 16, false},
		{"multiples of a large power of two", series(100_000, func(i uint64) uint64 { return i << 22 }), 1000, 100_000, false},
		{"the same, in a small table", series(2_000, func(i uint64) uint64 { return i << 22 }), 1000, 2_000, false},
		{"few keys", series(100, func(i uint64) uint64 { return i << 22 }), 0, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			capacity := uint32(8)
			for int(capacity) < len(c.keys) {
				capacity *= 2
			}
			l, err := builtin("8.2", false, false)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := l.table(hashTable(capacity, c.keys), 0x10000)
			if ok == c.tooFew {
				t.Fatalf("ok is %v: %+v", ok, got)
			}
			if got.PerSlot < c.least || got.PerSlot > c.most {
				t.Errorf("%+v, want %v to %v keys to a slot", got, c.least, c.most)
			}
		})
	}
}
