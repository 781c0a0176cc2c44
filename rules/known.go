package rules

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed"
	"io/fs"
	"path"
	"strings"
	"sync"

	"github.com/phpwhy/phpwhy/symbolize/symname"
)

// symbolsGz lists the C functions of PHP 7.4 to 8.4, its extensions and
// libraries; scripts/symbols makes it.
//
//go:embed symbols.txt.gz
var symbolsGz []byte

// symbolsOlder lists what symbolsGz lacks of older versions of PHP, in the form of
// a SymbolsFile.
//
//go:embed symbols-older.txt
var symbolsOlder string

// SymbolsFile is the name of a file in a folder of rules that lists further C
// functions, one per line, # before a comment.
const SymbolsFile = "symbols.txt"

// shipped are the functions of symbolsGz and symbolsOlder, to whether stripped programs export
// them. A list that can't be read is empty: then no name is known, which a
// test would notice.
var shipped = sync.OnceValue(func() map[string]bool {
	out := make(map[string]bool, 1<<15)
	for _, n := range listedNames(symbolsOlder) {
		out[n] = false
	}
	z, err := gzip.NewReader(bytes.NewReader(symbolsGz))
	if err != nil {
		return out
	}
	for s := bufio.NewScanner(z); s.Scan(); {
		name, exported := strings.CutPrefix(s.Text(), "+")
		out[name] = exported
	}
	return out
})

// Exported reports whether stripped programs still name a C function, as far
// as it is known.
func Exported(function string) bool { return shipped()[symname.Canonical(function)] }

// Symbols are names of C functions.
type Symbols struct{ own map[string]bool }

// Add adds names that are known beside those of PHP itself.
func (k *Symbols) Add(names ...string) {
	if k.own == nil {
		k.own = make(map[string]bool)
	}
	for _, n := range names {
		k.own[symname.Canonical(n)] = true
	}
}

// AddRules adds the names that rules use.
func (k *Symbols) AddRules(rules []*Rule) {
	for _, r := range rules {
		for _, a := range r.alts {
			for i := range a.prg.p.elements {
				if e := &a.prg.p.elements[i]; !e.php {
					k.Add(e.names...)
				}
			}
		}
	}
}

// AddFiles adds the names of each symbols.txt of a file system.
func (k *Symbols) AddFiles(dir fs.FS) error {
	return walk(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || path.Base(p) != SymbolsFile {
			return err
		}
		b, err := readFile(dir, p)
		k.Add(listedNames(string(b))...)
		return err
	})
}

// listedNames reads the text of a SymbolsFile.
func listedNames(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		out = append(out, strings.Fields(line)...)
	}
	return out
}

// addStacks adds the names of native frames.
func (k *Symbols) addStacks(o *Observation) {
	for i := range o.Stacks {
		for j := range o.Stacks[i].Frames {
			if f := &o.Stacks[i].Frames[j]; f.Kind == Native && f.Name != "" {
				k.Add(f.Name)
			}
		}
	}
}

func (k *Symbols) has(name string) bool {
	_, ok := shipped()[name]
	return ok || k.own[name]
}

// matches reports whether a glob fits some known name.
func (k *Symbols) matches(pattern string) bool {
	for _, list := range []map[string]bool{k.own, shipped()} {
		for n := range list {
			if glob(pattern, n) {
				return true
			}
		}
	}
	return false
}

// maxTypos is how far a name may be from the one that it is taken for.
const maxTypos = 3

// like finds the known name that a misspelt one probably means, "" for none.
func (k *Symbols) like(name string) string {
	limit := min(maxTypos, max(1, len(name)/4))
	best, dist := "", limit+1
	for _, list := range []map[string]bool{k.own, shipped()} {
		for n := range list {
			if d := editDistance(name, n, min(dist, limit)); d < dist || d == dist && d <= limit && n < best {
				best, dist = n, d
			}
		}
	}
	return best
}
