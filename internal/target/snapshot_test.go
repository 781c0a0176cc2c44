package target

import (
	"errors"
	"testing"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// memory is a target whose pages carry their own number; page 3 is missing.
type memory struct{ calls int }

func (m *memory) ReadRegions(rs []proc.Region) {
	m.calls++
	for i := range rs {
		rs[i].Got = 0
		for done := 0; done < len(rs[i].Buf); done += pageSize {
			n := (rs[i].At + remote.Addr(done)) / pageSize
			if n == 3 {
				break
			}
			for j := range pageSize {
				rs[i].Buf[done+j] = byte(n)
			}
			rs[i].Got += pageSize
		}
	}
}

func record(m *memory) *Snapshot {
	return &Snapshot{index: map[remote.Addr]int{}, src: m}
}

func TestSnapshotReadsAcrossPages(t *testing.T) {
	m := &memory{}
	s := record(m)
	b := make([]byte, pageSize+2)
	if err := remote.ReadFull(s, b, pageSize-1); err != nil {
		t.Fatal(err)
	}
	if b[0] != 0 || b[1] != 1 || b[pageSize] != 1 || b[pageSize+1] != 2 {
		t.Errorf("wrong pages: %d %d %d %d", b[0], b[1], b[pageSize], b[pageSize+1])
	}
	if m.calls != 1 {
		t.Errorf("%d reads of the live process, want 1", m.calls)
	}
}

func TestFrozenSnapshotKnowsOnlyWhatItRecorded(t *testing.T) {
	m := &memory{}
	s := record(m)
	s.Prefetch([]remote.Region{{At: 5 * pageSize, Len: 1}, {At: 7*pageSize - 1, Len: 2}, {At: 0, Len: -4}})
	s.Freeze()
	calls := m.calls
	if v, err := remote.Uint8(s, 7*pageSize); err != nil || v != 7 {
		t.Errorf("page 7: %d, %v", v, err)
	}
	if _, err := remote.Uint8(s, 8*pageSize); !errors.Is(err, remote.ErrNotCopied) {
		t.Errorf("page 8 was not recorded, got %v", err)
	}
	s.Prefetch([]remote.Region{{At: 8 * pageSize, Len: 1}})
	if m.calls != calls || calls != 1 {
		t.Errorf("the live process was read %d times, %d of them after the freeze", m.calls, m.calls-calls)
	}
}

func TestAnUnreadablePageSpoilsNoOther(t *testing.T) {
	s := record(&memory{})
	s.Prefetch([]remote.Region{{At: 2 * pageSize, Len: 3 * pageSize}, {At: 9 * pageSize, Len: 1}})
	for _, tt := range []struct {
		page remote.Addr
		ok   bool
	}{{2, true}, {3, false}, {4, true}, {9, true}} {
		v, err := remote.Uint8(s, tt.page*pageSize)
		if (err == nil) != tt.ok || tt.ok && v != byte(tt.page) {
			t.Errorf("page %d: %d, %v", tt.page, v, err)
		}
	}
}

func TestSnapshotIsBounded(t *testing.T) {
	s := record(&memory{})
	s.Prefetch([]remote.Region{{At: 16 * pageSize, Len: 4 * maxSnapshot}})
	s.Prefetch([]remote.Region{{At: 1 << 40, Len: 1}})
	if s.Size() > maxSnapshot {
		t.Errorf("recorded %d bytes, the limit is %d", s.Size(), maxSnapshot)
	}
	if _, err := remote.Uint8(s, 1<<40); !errors.Is(err, ErrSnapshotFull) {
		t.Errorf("beyond the limit: %v", err)
	}
}
