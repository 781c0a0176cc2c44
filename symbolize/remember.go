package symbolize

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/phpwhy/phpwhy/symbolize/dwinfo"
)

// Store keeps what was found out about modules between runs: answers of some
// kilobytes, and sections of some megabytes. Load returns nil for what it does not
// have, and for the key "".
type Store interface {
	Load(key string) []byte
	Save(key string, data []byte) error
}

// A hung worker is looked at more than once, and its outer frames are always the
// same few places. Answers about these are some kilobytes; to find them again
// means to inflate and to parse some 20 MB.

// maxRemembered bounds the answers of a module that are kept.
const maxRemembered = 4096

const answersVersion = 2

func symbolKey(pc, entry uint64) string { return fmt.Sprintf("%x %x", pc, entry) }

// key identifies the files that the answers come from. A build-id alone is what
// a file says of itself, and a container's may lie: device, inode and times tell
// its file from the host's.
func (m *Module) key() string {
	m.debugOnce.Do(m.loadDebug)
	own, debug := m.file.Identity(), m.debug.Identity()
	if own == "" || debug == "" || m.alt {
		return ""
	}
	return fmt.Sprintf("symbolize %d %s\n%s\n%s", answersVersion, m.file.BuildID(), own, debug)
}

// recall takes over what an earlier run has found out.
func (m *Module) recall() {
	m.recallOnce.Do(func() {
		m.known = newAnswers()
		if m.store == nil {
			return
		}
		a, ok := unpack(m.store.Load(m.key()))
		if !ok {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		for pc, fs := range a.Funcs {
			m.known.Funcs[pc], m.at[pc] = fs, fs
		}
		for k, s := range a.Symbols {
			m.known.Symbols[k] = s
		}
		for k, s := range a.Structs {
			m.known.Structs[k] = s
		}
	})
}

// learn notes an answer that is worth keeping.
func (m *Module) learn(note func(a *answers)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.store != nil && len(m.known.Funcs)+len(m.known.Symbols) < maxRemembered {
		note(&m.known)
		m.news = true
	}
}

// sectionKey is the key of what was inflated of a section of the debug file.
func (m *Module) sectionKey(section string) string {
	if key := m.key(); key != "" {
		return key + "\n" + section
	}
	return ""
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealed puts a checksum in front of what has no form of its own that damage to it
// would break.
func sealed(b []byte) []byte {
	out := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(b)), crc32.Checksum(b, castagnoli))
	return append(out, b...)
}

// unsealed is what was sealed, nil for what is damaged.
func unsealed(b []byte) []byte {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return nil
	}
	return b[4:]
}

// keep saves what was learned.
func (m *Module) keep() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.store == nil || !m.news {
		return nil
	}
	m.news = false
	key := m.key()
	if key == "" {
		return nil
	}
	err := m.store.Save(key, m.known.pack())
	// The next look asks about new places in the same debug file: what was inflated
	// of it is worth its megabytes.
	if m.debug != m.file {
		m.debug.EachInflated(func(section string, b []byte) {
			err = errors.Join(err, m.store.Save(m.sectionKey(section), sealed(b)))
		})
	}
	return err
}

// StructsIn asks the module's DWARF for struct layouts, see dwinfo.
func (m *Module) StructsIn(pcs []uint64, names ...string) (map[string]*dwinfo.Struct, error) {
	d, err := m.DWARF()
	if d == nil {
		return nil, err
	}
	m.recall()
	sorted := slices.Sorted(slices.Values(names))
	key := fmt.Sprintf("%x %s", pcs, strings.Join(sorted, " "))
	m.mu.RLock()
	found, ok := m.known.Structs[key]
	m.mu.RUnlock()
	if ok {
		return found, nil
	}
	found, err = d.StructsIn(pcs, names...)
	if err == nil {
		m.learn(func(a *answers) { a.Structs[key] = found })
	}
	return found, err
}
