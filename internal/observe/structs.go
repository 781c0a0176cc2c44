package observe

import (
	"strings"
	"sync"

	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize"
)

// structs are the struct layouts that were read from modules' DWARF: one
// reading for all workers of a program.
type structs struct {
	mu    sync.Mutex
	known map[structsKey]*structsEntry
}

type structsKey struct {
	m     *symbolize.Module
	names string
}

type structsEntry struct {
	once  sync.Once
	found map[string]zend.Struct // not to be changed
	err   error
}

func (c *structs) of(m *symbolize.Module, names []string, read func([]string) (map[string]zend.Struct, error)) (map[string]zend.Struct, error) {
	k := structsKey{m, strings.Join(names, " ")}
	c.mu.Lock()
	if c.known == nil {
		c.known = make(map[structsKey]*structsEntry)
	}
	e := c.known[k]
	if e == nil {
		e = &structsEntry{}
		c.known[k] = e
	}
	c.mu.Unlock()
	e.once.Do(func() { e.found, e.err = read(names) })
	return e.found, e.err
}
