package target

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/symbolize/objfile"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// ErrNotCore says that a file is no core file that can be read here.
var ErrNotCore = errors.New("not a core file")

// ErrOtherFile says that a file is not the one that the process had mapped.
var ErrOtherFile = errors.New("it is another build than the process had mapped")

const (
	// maxNotes bounds a core's notes, in bytes: a thread takes some 6 kB, a
	// mapped file its path.
	maxNotes = 256 << 20
	// firstPage is what the kernel dumps of a mapped ELF file that was not
	// written to (core(5), coredump_filter bit 4).
	firstPage = 4096
)

// CoreOptions say where the files are that the process had mapped. A core file
// holds what the process wrote; its code is in them.
type CoreOptions struct {
	Exe     string // the program; empty: at its own path
	Sysroot string // the folder that holds the others; empty: this host's root
}

// CoreThread is a thread as the core has it.
type CoreThread struct {
	TID  int
	Regs remote.Regs
}

// Core is a process as a core file has it. It implements remote.Reader and is
// safe for concurrent use.
type Core struct {
	Name    string // of the core file
	PID     int
	Threads []CoreThread // the one that died first
	Maps    remote.Mappings
	Signal  Signal
	// Have and Want are the core's size in bytes and what its headers speak of:
	// a disk that was full leaves less.
	Have, Want uint64

	cmdline string
	exe     string // as the process had it mapped
	opt     CoreOptions
	f       *os.File
	loads   []*elf.Prog // by address

	mu    sync.Mutex
	files map[string]coreFile // by path, as mapped
}

// coreFile is a file that the process had mapped, or why it is none.
type coreFile struct {
	f   *os.File
	err error
}

// cores tells the files of one core from those of another: no device or inode
// is in it.
var cores atomic.Uint64

// OpenCore reads a core file's headers. The caller closes it.
func OpenCore(name string, opt CoreOptions) (*Core, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	c := &Core{Name: name, opt: opt, f: f, files: make(map[string]coreFile)}
	if err := c.read(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// Close closes the core and the files that were opened beside.
func (c *Core) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.files {
		if x.f != nil {
			_ = x.f.Close()
		}
	}
	return c.f.Close()
}

// Cmdline is the command line, of which the kernel keeps 80 bytes.
func (c *Core) Cmdline() string { return c.cmdline }

// Exe is the program's path.
func (c *Core) Exe() (string, error) {
	if c.exe == "" {
		return "", fmt.Errorf("%s: it does not say which program this was", c.Name)
	}
	return c.exe, nil
}

// packed are the first bytes of what cores are compressed with.
var packed = []struct{ magic, name, command string }{
	{"\x28\xb5\x2f\xfd", "zstd", "zstd -d"}, {"\x04\x22\x4d\x18", "lz4", "lz4 -d"}, {"\xfd7zXZ", "xz", "xz -dk"}, {"\x1f\x8b", "gzip", "gunzip -k"},
}

func (c *Core) read() error {
	st, err := c.f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%w: not a regular file", ErrNotCore)
	}
	c.Have = uint64(st.Size())
	head := make([]byte, 8)
	_, _ = c.f.ReadAt(head, 0)
	for _, p := range packed {
		if strings.HasPrefix(string(head), p.magic) {
			return fmt.Errorf("%w: it is compressed with %s; unpack it first: %s %s", ErrNotCore, p.name, p.command, c.Name)
		}
	}
	if !strings.HasPrefix(string(head), elf.ELFMAG) {
		return fmt.Errorf("%w: it is no ELF file", ErrNotCore)
	}
	f, err := elf.NewFile(withoutSections(c.f, c.Have))
	if err != nil {
		return fmt.Errorf("%w: %v", ErrNotCore, err)
	}
	if f.Type != elf.ET_CORE {
		return fmt.Errorf("%w: it is a program, a library or an object file (%v)", ErrNotCore, f.Type)
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB {
		return fmt.Errorf("%w: it is of a machine that phpwhy does not know (%v, %v)", ErrNotCore, f.Class, f.Data)
	}
	n := notes{machine: f.Machine}
	for _, p := range f.Progs {
		c.Want = max(c.Want, p.Off+p.Filesz)
		switch p.Type {
		case elf.PT_NOTE:
			if p.Filesz > maxNotes {
				return fmt.Errorf("%w: notes of %d bytes", ErrNotCore, p.Filesz)
			}
			b := make([]byte, min(p.Filesz, c.Have))
			got, err := io.ReadFull(p.Open(), b)
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
				return err
			}
			n.read(b[:got])
		case elf.PT_LOAD:
			if _, ok := remote.Addr(p.Vaddr).Add(p.Memsz); ok && p.Memsz > 0 {
				c.loads = append(c.loads, p)
			}
		}
	}
	if n.err != nil {
		return fmt.Errorf("%w: %v", ErrNotCore, n.err)
	}
	if len(n.threads) == 0 && c.Have < c.Want {
		return fmt.Errorf("%w: %d of %d bytes are there, and no thread's registers among them (a full disk, or ulimit -c)", ErrCutCore, c.Have, c.Want)
	}
	if len(n.threads) == 0 {
		return fmt.Errorf("%w: no thread's registers are in it", ErrNotCore)
	}
	slices.SortStableFunc(c.loads, func(a, b *elf.Prog) int { return cmp.Compare(a.Vaddr, b.Vaddr) })
	c.Threads, c.PID, c.cmdline = n.threads, n.pid, n.cmdline
	if n.signal.ended() {
		c.Signal = n.signal
	}
	if c.PID == 0 {
		c.PID = c.Threads[0].TID
	}
	c.mappings(&n)
	return nil
}

// mappings puts together what was mapped where: memory from the segments, files
// from the list of them.
func (c *Core) mappings(n *notes) {
	id := cores.Add(1)
	file := func(m *remote.Mapping, r *fileRange) {
		m.Path, m.Deleted = strings.CutSuffix(r.path, " (deleted)")
		m.Inode, m.Dev = id, 0
		m.Offset = r.offset + uint64(m.Start-r.start)
		m.Shared = m.Path == "/dev/zero" // the only one that a core lets one tell
	}
	for _, p := range c.loads {
		m := remote.Mapping{Start: remote.Addr(p.Vaddr), End: remote.Addr(p.Vaddr + p.Memsz),
			Read: p.Flags&elf.PF_R != 0, Write: p.Flags&elf.PF_W != 0, Exec: p.Flags&elf.PF_X != 0}
		if r := n.fileAt(m.Start); r != nil {
			file(&m, r)
		}
		if m.Contains(n.vdso) {
			m.Path = "[vdso]"
		}
		if len(c.Maps) == 0 || c.Maps[len(c.Maps)-1].End <= m.Start {
			c.Maps = append(c.Maps, m)
		}
	}
	// gdb's cores have no segments for what is only in files.
	loaded := c.Maps
	last := remote.Addr(0)
	for i := range n.files {
		r := &n.files[i]
		next, _ := slices.BinarySearchFunc(loaded, r.start, func(m remote.Mapping, at remote.Addr) int { return cmp.Compare(m.Start, at) })
		if r.end <= r.start || r.start < last || next < len(loaded) && loaded[next].Start < r.end || next > 0 && loaded[next-1].End > r.start {
			continue
		}
		m := remote.Mapping{Start: r.start, End: r.end, Read: true}
		file(&m, r)
		c.Maps = append(c.Maps, m)
		last = r.end
	}
	slices.SortFunc(c.Maps, func(a, b remote.Mapping) int { return cmp.Compare(a.Start, b.Start) })
	if r := n.fileAt(n.phdr); r != nil && n.phdr != 0 {
		c.exe = strings.TrimSuffix(r.path, " (deleted)")
	}
	for i := range c.Maps {
		if m := &c.Maps[i]; !m.Exec && !m.Write && m.Inode != 0 && c.load(m.Start) == nil {
			m.Exec = c.executable(m)
		}
	}
}

// executable reports whether a mapping is a file's code, which only the file
// says where the core has no segment for it.
func (c *Core) executable(m *remote.Mapping) bool {
	f, err := c.OpenMapped(*m)
	if err != nil {
		return false
	}
	defer f.Close()
	e, err := elf.NewFile(f)
	if err != nil {
		return false
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && m.Offset >= p.Off&^(firstPage-1) && m.Offset < p.Off+p.Filesz {
			return true
		}
	}
	return false
}

// load is the segment at an address, nil for none.
func (c *Core) load(at remote.Addr) *elf.Prog {
	i, ok := slices.BinarySearchFunc(c.loads, uint64(at), func(p *elf.Prog, at uint64) int { return cmp.Compare(p.Vaddr, at) })
	if !ok {
		i--
	}
	if i < 0 || uint64(at)-c.loads[i].Vaddr >= c.loads[i].Memsz {
		return nil
	}
	return c.loads[i]
}

// ReadMemory implements remote.Reader: from the core, or from the file that was
// mapped, where nobody could write to it.
func (c *Core) ReadMemory(b []byte, at remote.Addr) (int, error) {
	got := 0
	for got < len(b) {
		a, ok := at.Add(uint64(got))
		if !ok {
			break
		}
		n := c.readAt(b[got:], a)
		if n == 0 {
			break
		}
		got += n
	}
	if got == len(b) {
		return got, nil
	}
	return got, &remote.ReadError{At: at, Want: len(b), Got: got, Err: remote.ErrUnmapped}
}

// readAt reads from one segment or one file.
func (c *Core) readAt(b []byte, at remote.Addr) int {
	if p := c.load(at); p != nil {
		if off := uint64(at) - p.Vaddr; off < p.Filesz {
			n, _ := p.ReadAt(b[:min(uint64(len(b)), p.Filesz-off)], int64(off))
			return n
		}
	}
	m := c.Maps.Find(at)
	if m == nil || m.Write || m.Inode == 0 {
		return 0
	}
	rest, _ := m.End.Distance(at)
	x := c.file(m.Path)
	if x.err != nil {
		return 0
	}
	n, _ := x.f.ReadAt(b[:min(uint64(len(b)), rest)], int64(m.Offset+uint64(at-m.Start)))
	return n
}

// ReadRegions fills each region as far as it can.
func (c *Core) ReadRegions(rs []proc.Region) {
	for i := range rs {
		rs[i].Got, _ = c.ReadMemory(rs[i].Buf, rs[i].At)
	}
}

// OpenMapped opens the file that was mapped at m, if the build-id that the core
// has of it is the file's own. The caller closes it.
func (c *Core) OpenMapped(m remote.Mapping) (*os.File, error) {
	x := c.file(m.Path)
	if x.err != nil {
		return nil, x.err
	}
	return proc.Duplicate(x.f)
}

func (c *Core) file(path string) coreFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	x, ok := c.files[path]
	if !ok {
		x.f, x.err = c.open(path)
		c.files[path] = x
	}
	return x
}

// Missing are the files that were mapped, were asked for and are not at hand, and
// why not.
func (c *Core) Missing() map[string]error {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]error)
	for path, x := range c.files {
		if x.err != nil {
			out[path] = x.err
		}
	}
	return out
}

func (c *Core) open(path string) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	f, err := c.find(path)
	if err != nil {
		return nil, err
	}
	if err := c.same(f, path); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// find opens a regular file by the path that the process had it under.
func (c *Core) find(path string) (*os.File, error) {
	if path == c.exe && c.opt.Exe != "" {
		path = c.opt.Exe
	} else if c.opt.Sysroot != "" {
		return proc.OpenIn(c.opt.Sysroot, path)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() { // opening a FIFO waits, opening a device acts
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	return os.Open(path)
}

// same holds a file against what the core has of the one that was mapped: its
// build-id, which is in the first page.
func (c *Core) same(f *os.File, path string) error {
	was := c.buildID(path)
	if was == "" {
		return nil // the core does not say; the layouts' checks are left
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	e, err := objfile.Open(f.Name(), f, st.Size(), nil)
	if err != nil {
		return err
	}
	if is := e.BuildID(); is != was {
		return fmt.Errorf("%s: %w: its build-id is %q, mapped was %q", f.Name(), ErrOtherFile, is, was)
	}
	return nil
}

// buildID is that of a mapped file as the core has it, "" where it does not.
func (c *Core) buildID(path string) string {
	for i := range c.Maps {
		m := &c.Maps[i]
		p := c.load(m.Start)
		if m.Path != path || m.Offset != 0 || p == nil || p.Filesz == 0 {
			continue
		}
		b := make([]byte, min(p.Filesz, firstPage))
		n, _ := p.ReadAt(b, 0)
		f, err := objfile.FromLoaded(path, []objfile.Piece{{At: uint64(m.Start), Data: b[:n]}})
		if err != nil {
			return ""
		}
		return f.BuildID()
	}
	return ""
}

// OpenInRoot opens a file by the path that the process had it under, below the
// sysroot.
func (c *Core) OpenInRoot(path string) (*os.File, error) {
	if c.opt.Sysroot == "" {
		return nil, fs.ErrNotExist // it is looked for on this host anyway
	}
	return proc.OpenIn(c.opt.Sysroot, path)
}
