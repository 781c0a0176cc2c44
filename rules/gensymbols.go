//go:build ignore

// Gensymbols writes the list of C functions that "rules lint" knows, from ELF
// files with DWARF, a symbol table or dynamic symbols, and from captures:
//
//	go run rules/gensymbols.go -o rules/symbols.txt.gz FILE...
//
// scripts/symbols names the files. A name that stripped programs export too
// has a + before it.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"debug/dwarf"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/symbolize/symname"
)

// wanted leaves out C++, Rust and what compilers make up.
var wanted = lazily(`^[A-Za-z_][A-Za-z0-9_]*$`)

type names map[string]bool // to whether it is exported

func (n names) add(raw string, exported bool) {
	name := symname.Canonical(raw)
	if wanted().MatchString(name) && !strings.HasPrefix(name, "_Z") && len(name) < 100 {
		n[name] = n[name] || exported
	}
}

func main() {
	log.SetFlags(0)
	out := flag.String("o", "", "the file to write")
	flag.Parse()
	n := make(names)
	for _, file := range flag.Args() {
		if err := n.read(file); err != nil {
			log.Fatalf("%s: %v", file, err)
		}
	}
	var text bytes.Buffer
	z, err := gzip.NewWriterLevel(&text, gzip.BestCompression)
	if err != nil {
		log.Fatal(err)
	}
	w := bufio.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(n)) {
		if n[name] {
			w.WriteByte('+')
		}
		fmt.Fprintln(w, name)
	}
	if err := errors.Join(w.Flush(), z.Close(), os.WriteFile(*out, text.Bytes(), 0o644)); err != nil {
		log.Fatal(err)
	}
	log.Printf("%d names, %d bytes", len(n), text.Len())
}

func (n names) read(file string) error {
	if strings.Contains(file, ".jsonl") {
		return n.capture(file)
	}
	f, err := elf.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	dynamic, _ := f.DynamicSymbols() // there may be none
	static, _ := f.Symbols()
	for i, list := range [][]elf.Symbol{dynamic, static} {
		for _, s := range list {
			if t := elf.ST_TYPE(s.Info); (t == elf.STT_FUNC || t == elf.STT_GNU_IFUNC) && s.Section != elf.SHN_UNDEF {
				n.add(s.Name, i == 0)
			}
		}
	}
	if f.Section(".debug_info") == nil {
		return nil
	}
	d, err := f.DWARF()
	if err != nil {
		return nil // compressed with dwz; its symbols do
	}
	// Inlined functions are in no symbol table.
	for r := d.Reader(); ; {
		e, err := r.Next()
		if err != nil || e == nil {
			return err
		}
		if e.Tag == dwarf.TagSubprogram {
			if name, ok := e.Val(dwarf.AttrName).(string); ok && (e.Val(dwarf.AttrInline) != nil || e.Val(dwarf.AttrLowpc) != nil) {
				n.add(name, false)
			}
		}
		if e.Tag != dwarf.TagCompileUnit {
			r.SkipChildren()
		}
	}
}

func (n names) capture(file string) error {
	f, err := capture.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := capture.Read(f)
	if err != nil {
		return err
	}
	for _, s := range c.Stacks {
		for _, fr := range s.Frames {
			if fr.Kind == stack.Native {
				n.add(fr.Function, false)
			}
		}
	}
	return nil
}
