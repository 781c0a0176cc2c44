package dwinfo

import (
	"path"
	"strings"
)

// lineHeader is the header of a line table (6.2.4).
type lineHeader struct {
	version       uint16
	minInst       uint8
	maxOps        uint8
	defaultIsStmt bool
	lineBase      int8
	lineRange     uint8
	opcodeBase    uint8
	opLengths     []byte // operands of standard opcode i+1
	// special holds what special opcodes do, to spare two divisions per row.
	special [256]struct {
		ops  uint8 // to advance by
		line int16
	}

	compDir string
	dirs    []lineName // index as in the table; version < 5: [0] is the compilation directory
	files   []lineName // index as in the table; version < 5: [0] is not used
	// twin: files 0 and 1 are one file, as gcc writes since version 11.
	twin bool
}

// lineName is a directory or a file.
type lineName struct {
	name []byte
	dir  int
}

// parseLineHeader reads the header of the table at off.
func (u *unit) parseLineHeader(sec []byte, off int) (*lineProgram, error) {
	c := at(sec, off)
	n, offSize := c.initialLength()
	if c.bad || n > uint64(len(sec)-c.p) {
		return nil, malformed(".debug_line", off, "line table runs past the end of the section")
	}
	end := c.p + int(n)
	if _, err := u.f.sectionTo(secLine, end); err != nil {
		return nil, err
	}
	c.b = sec[:end:end]
	lp := &lineProgram{}
	h := &lp.lineHeader
	h.version, h.compDir = c.u16(), u.compDir
	p := params{addrSize: u.p.addrSize, offSize: int8(offSize), refSize: int8(offSize)}
	if h.version >= 5 {
		c.skip(2) // address and segment selector size
	}
	headerLen := c.uint(offSize)
	if c.bad || h.version < 2 || h.version > 5 || headerLen > uint64(end-c.p) {
		return nil, malformed(".debug_line", off, "line table with an unknown version or a bad header length")
	}
	body := c.p + int(headerLen)
	h.minInst = c.u8()
	h.maxOps = 1
	if h.version >= 4 {
		h.maxOps = c.u8()
	}
	h.defaultIsStmt = c.u8() != 0
	h.lineBase = int8(c.u8())
	h.lineRange = c.u8()
	h.opcodeBase = c.u8()
	if c.bad || h.lineRange == 0 || h.opcodeBase == 0 {
		return nil, malformed(".debug_line", off, "line table with a line range or an opcode base of zero")
	}
	h.opLengths = c.bytes(uint64(h.opcodeBase - 1))
	for op := int(h.opcodeBase); op < 256; op++ {
		adj := op - int(h.opcodeBase)
		h.special[op].ops = uint8(adj / int(h.lineRange))
		h.special[op].line = int16(h.lineBase) + int16(adj%int(h.lineRange))
	}
	var err error
	if h.version >= 5 {
		err = u.lineNames5(&c, h, p)
	} else {
		err = lineNames4(&c, h)
	}
	if err == nil && c.bad {
		err = malformed(".debug_line", off, "directory and file tables cut short")
	}
	if err != nil {
		return nil, err
	}
	if len(h.files) > 1 && h.version >= 5 {
		a, b := h.files[0], h.files[1]
		h.twin = a.dir == b.dir && string(a.name) == string(b.name)
	}
	lp.code, lp.body = c.b, body
	return lp, nil
}

// lineNames4 reads the tables of versions 2 to 4 (DWARF 4, 6.2.4).
func lineNames4(c *cursor, h *lineHeader) error {
	h.dirs = append(h.dirs, lineName{})
	h.files = append(h.files, lineName{})
	for {
		s := c.cstr()
		if len(s) == 0 {
			break
		}
		if len(h.dirs) > maxLineEntries {
			return limit(".debug_line", c.p, "directories of one line table")
		}
		h.dirs = append(h.dirs, lineName{name: s})
	}
	for {
		s := c.cstr()
		if len(s) == 0 {
			return nil
		}
		dir := smallInt(c.uleb())
		c.skipLEB() // time
		c.skipLEB() // size
		if len(h.files) > maxLineEntries {
			return limit(".debug_line", c.p, "files of one line table")
		}
		h.files = append(h.files, lineName{name: s, dir: dir})
	}
}

// lineNames5 reads the tables of version 5.
func (u *unit) lineNames5(c *cursor, h *lineHeader, p params) (err error) {
	if h.dirs, err = u.lineNameTable(c, p); err != nil {
		return err
	}
	h.files, err = u.lineNameTable(c, p)
	return err
}

const (
	lnctPath           = 1
	lnctDirectoryIndex = 2
)

// lineNameTable reads one table with its description (6.2.4.1).
func (u *unit) lineNameTable(c *cursor, p params) (names []lineName, err error) {
	start := c.p
	var formats [maxEntryFormats]struct {
		kind uint64
		attrSpec
	}
	n := int(c.u8())
	if n > maxEntryFormats {
		return nil, limit(".debug_line", start, "columns of one line table header")
	}
	consumes := false // else count alone would prolong the loop
	for i := range formats[:n] {
		formats[i].kind = c.uleb()
		form := uint16(min(c.uleb(), 0xffff))
		size, ok := formSize(form, p)
		if !ok || form == formImplicitConst {
			return nil, malformed(".debug_line", start, "unknown form in the description of a table")
		}
		formats[i].attrSpec = attrSpec{form: form, size: size}
		consumes = consumes || size != 0
	}
	count := c.uleb()
	if count > maxLineEntries {
		return nil, limit(".debug_line", start, "entries of one line table header")
	}
	if c.bad || (count > 0 && !consumes) {
		return nil, malformed(".debug_line", start, "directory and file tables cut short")
	}
	for range count {
		var e lineName
		for i := range formats[:n] {
			v := c.value(&formats[i].attrSpec, p)
			switch formats[i].kind {
			case lnctPath:
				if c.bad {
					break
				}
				if e.name, err = u.strBytes(v); err != nil {
					return nil, err
				}
			case lnctDirectoryIndex:
				e.dir = smallInt(v.u)
			}
		}
		if c.bad {
			return nil, malformed(".debug_line", start, "directory and file tables cut short")
		}
		names = append(names, e)
	}
	return names, nil
}

// canonical folds the two indices of the primary file into one, so that a
// switch between them is not taken for a change of file.
func (h *lineHeader) canonical(i uint64) int {
	if i == 0 && h.twin {
		return 1
	}
	return smallInt(i)
}

// file returns the full path of file i and the path as gdb prints it; "" for
// an index that the table lacks.
func (h *lineHeader) file(i int) (full, raw string) {
	if i < 0 || i >= len(h.files) || (i == 0 && h.version < 5) {
		return "", ""
	}
	f := h.files[i]
	raw = string(f.name)
	if f.dir < len(h.dirs) && !strings.HasPrefix(raw, "/") {
		if dir := string(h.dirs[f.dir].name); dir != "" {
			raw = strings.TrimSuffix(dir, "/") + "/" + raw
		}
	}
	full = raw
	if !strings.HasPrefix(full, "/") {
		// In version 5 directory 0 is the compilation directory itself, and
		// has been joined above.
		if h.version < 5 || f.dir != 0 {
			full = h.compDir + "/" + full
		}
		if h.compDir == "" {
			full = raw
		}
	}
	return path.Clean(full), raw
}
