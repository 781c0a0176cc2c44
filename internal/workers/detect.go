package workers

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/phpwhy/phpwhy/symbolize/objfile"
)

const (
	// maxRodata bounds what is searched of one program for PHP's banner, in bytes.
	maxRodata = 64 << 20
	// again is after how long a process that had no PHP is asked once more: it
	// may have loaded a libphp since.
	again = 30 * time.Second
	// maxBinaries bounds what is remembered of programs.
	maxBinaries = 1 << 14
)

// binary is a program file.
type binary struct{ dev, inode uint64 }

func binaryAt(path string) (binary, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return binary{}, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return binary{}, errors.New(path + ": no device and inode")
	}
	return binary{st.Dev, st.Ino}, nil
}

// Finder finds workers again and again and remembers which programs are PHP. It
// is safe for concurrent use.
type Finder struct {
	mu       sync.Mutex
	programs map[binary]bool
	// without are processes that had neither PHP's program nor its library when
	// they were last looked at.
	without map[ID]time.Time
}

// NewFinder makes a Finder that knows nothing yet.
func NewFinder() *Finder {
	return &Finder{programs: make(map[binary]bool), without: make(map[ID]time.Time)}
}

// named are PHP's own programs: php, php8.2, php-fpm8.2, php-cgi, lsphp.
var named = regexp.MustCompile(`^(php|php-fpm|php-cgi|lsphp)[-0-9.]*$`)

// library is PHP as a module or library: libphp.so, libphp8.2.so, libphp7.so.
var library = regexp.MustCompile(`^(lib|mod_)php[-0-9.]*\.so[0-9.]*$`)

// PHP reports whether a process runs PHP: by its program's name, its program's
// symbols, or a library that it has mapped.
func (fi *Finder) PHP(w *Worker) (bool, error) {
	if named.MatchString(filepath.Base(w.Exe)) {
		return true, nil
	}
	is, err := fi.program("/proc/" + strconv.Itoa(w.PID) + "/exe")
	if err != nil || is {
		return is, err
	}
	fi.mu.Lock()
	at, asked := fi.without[w.ID]
	fi.mu.Unlock()
	if asked && time.Since(at) < again {
		return false, nil
	}
	is, err = fi.mapsPHP(w.PID)
	if !is && err == nil {
		fi.mu.Lock()
		fi.without[w.ID] = time.Now()
		fi.mu.Unlock()
	}
	return is, err
}

// forget drops what is remembered of processes that have ended.
func (fi *Finder) forget(pids []int, named bool) {
	if named {
		return
	}
	fi.mu.Lock()
	defer fi.mu.Unlock()
	for id := range fi.without {
		if _, alive := slices.BinarySearch(pids, id.PID); !alive {
			delete(fi.without, id)
		}
	}
}

// mapsPHP looks for a libphp among what a process has mapped, and into files
// that have PHP in their names: Node's php-node is a library with PHP inside.
func (fi *Finder) mapsPHP(pid int) (bool, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	f, err := os.Open(dir + "/maps")
	if err != nil {
		return false, err
	}
	defer f.Close()
	seen := ""
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		i := strings.IndexByte(line, '/')
		if i < 0 || line[i:] == seen {
			continue
		}
		seen = line[i:]
		path := strings.TrimSuffix(seen, " (deleted)")
		base := filepath.Base(path)
		if library.MatchString(base) {
			return true, nil
		}
		if !strings.Contains(strings.ToLower(base), "php") {
			continue
		}
		// A file that can't be read, or is no program, says nothing of PHP.
		if is, err := fi.program(dir + "/root" + path); err == nil && is {
			return true, nil
		}
	}
	return false, nil
}

// program reports whether a file has PHP's engine in it, and remembers it.
func (fi *Finder) program(path string) (bool, error) {
	id, err := binaryAt(path)
	if err != nil {
		return false, err
	}
	fi.mu.Lock()
	is, known := fi.programs[id]
	fi.mu.Unlock()
	if known {
		return is, nil
	}
	is, err = hasPHP(path)
	if err != nil && errors.Is(err, os.ErrPermission) {
		return false, err
	}
	fi.mu.Lock()
	defer fi.mu.Unlock()
	if len(fi.programs) >= maxBinaries {
		clear(fi.programs)
	}
	fi.programs[id] = is
	return is, nil
}

// hasPHP looks into a program: an engine that is compiled in has its globals'
// names, and where they were stripped PHP's banner is left.
func hasPHP(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	of, err := objfile.FromOS(f, path)
	if err != nil {
		_ = f.Close()
		return false, err
	}
	defer func() { _ = of.Close() }()
	for _, name := range []string{"executor_globals", "executor_globals_offset", "executor_globals_id"} {
		if _, ok := of.Exported(name); ok {
			return true, nil
		}
	}
	at, n := of.Addr(".rodata"), uint64(0)
	if n, err = of.Size(".rodata"); err != nil {
		return false, nil
	}
	return contains(of, at, min(n, maxRodata), []byte("X-Powered-By: PHP/")), nil
}

// contains searches a file piece by piece: it may be large, and is not PHP's
// most of the time.
func contains(of *objfile.File, at, n uint64, text []byte) bool {
	const step = 256 << 10
	b := make([]byte, step)
	for done := uint64(0); done < n; {
		p := b[:min(step, n-done)]
		if err := of.ReadAddr(p, at+done); err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		if bytes.Contains(p, text) {
			return true
		}
		if uint64(len(p)) == n-done || len(p) <= len(text) {
			return false
		}
		done += uint64(len(p) - len(text))
	}
	return false
}
