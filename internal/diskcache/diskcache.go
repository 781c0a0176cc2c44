// Package diskcache keeps pieces of data between runs, in files that only
// their owner can read and write.
//
// Contract: what Load returns is what Save was given, by this user and this
// build of the program, or nothing. A cache that can't be read or written costs
// time and is no error.
//
// Hazard: phpwhy runs as root. A directory or a file that belongs to someone
// else, that others may write to, or that is a link, is not touched.
//
// Non-goal: it does not know what it keeps.
package diskcache

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Variable names the directory in the environment; empty switches the cache off.
const Variable = "PHPWHY_CACHE_DIR"

const (
	// magic is the format's version. What begins otherwise is ignored.
	magic = "phpwhy cache 2\n"
	// maxEntry bounds one piece, maxTotal and maxFiles all of them, in bytes and
	// by number. The ones that were not written for the longest time go first.
	maxEntry = 16 << 20
	maxTotal = 64 << 20
	maxFiles = 512
	suffix   = ".idx"
	// abandoned is the age at which a file that was never renamed is removed.
	abandoned = time.Hour
)

// Store is a directory. Its zero value keeps nothing.
type Store struct{ dir, owner string }

// ErrForeign says that somebody else could have put something there.
var ErrForeign = errors.New("it belongs to someone else, or others may write to it")

// Open returns the user's store. getenv is os.Getenv, lookup os.LookupEnv.
func Open(lookup func(string) (string, bool)) Store {
	if dir, ok := lookup(Variable); ok {
		return At(dir)
	}
	if dir, _ := lookup("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return At(filepath.Join(dir, "phpwhy"))
	}
	if os.Geteuid() == 0 {
		return At("/var/cache/phpwhy")
	}
	if home, _ := lookup("HOME"); filepath.IsAbs(home) {
		return At(filepath.Join(home, ".cache", "phpwhy"))
	}
	return Store{}
}

// At is the store in a directory, which need not exist; "" keeps nothing.
func At(dir string) Store { return Store{dir: dir} }

// For is the part of the store that belongs to this very program file: what
// another build has found out may be what was mended since.
func (s Store) For(program string) Store {
	st, err := os.Stat(program)
	if err != nil {
		return Store{}
	}
	s.owner = fmt.Sprintf("%d %d\n", st.Size(), st.ModTime().UnixNano())
	return s
}

func (s Store) path(key string) string {
	sum := sha256.Sum256([]byte(s.owner + key))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:])+suffix)
}

// Load returns what is kept under a key, nil when there is nothing that can be
// trusted.
func (s Store) Load(key string) []byte {
	if s.dir == "" || key == "" || s.own() != nil {
		return nil
	}
	f, err := os.OpenFile(s.path(key), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || !mine(st) || st.Size() > maxEntry {
		return nil
	}
	b := make([]byte, st.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil
	}
	rest, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok || len(rest) < sumSize {
		return nil
	}
	data := rest[sumSize:]
	if binary.LittleEndian.Uint32(rest) != checksum(s.owner+key, data) {
		return nil
	}
	return data
}

// sumSize is the size of a checksum in bytes. It is there to notice damage: nobody
// but the owner can have written the file, who needs no cache to deceive himself.
const sumSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is of the key as well: a file under another's name is no answer.
func checksum(key string, data []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key+"\x00"), castagnoli), castagnoli, data)
}

// Save keeps data under a key. It replaces what was there at once or not at all.
func (s Store) Save(key string, data []byte) error {
	if s.dir == "" || key == "" || len(data) > maxEntry-len(magic)-sumSize {
		return nil
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.own(); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, "new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(binary.LittleEndian.AppendUint32([]byte(magic), checksum(s.owner+key, data)))
	if err == nil {
		_, err = f.Write(data)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path(key))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return s.prune()
}

// own reports why the directory can't be trusted.
func (s Store) own() error {
	st, err := os.Lstat(s.dir)
	if err != nil {
		return err
	}
	if !st.IsDir() || !mine(st) {
		return &fs.PathError{Op: "use", Path: s.dir, Err: ErrForeign}
	}
	return nil
}

// mine reports whether only this user can have written something.
func mine(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Geteuid() && st.Mode().Perm()&0o022 == 0
}

// prune keeps the directory within its limits.
func (s Store) prune() error {
	ents, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var kept []fs.FileInfo
	total := int64(0)
	for _, e := range ents {
		st, err := e.Info()
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		switch {
		case strings.HasSuffix(e.Name(), suffix):
			kept = append(kept, st)
			total += st.Size()
		case strings.HasPrefix(e.Name(), "new-") && time.Since(st.ModTime()) > abandoned:
			os.Remove(filepath.Join(s.dir, e.Name()))
		}
	}
	slices.SortFunc(kept, func(a, b fs.FileInfo) int { return cmp.Compare(a.ModTime().UnixNano(), b.ModTime().UnixNano()) })
	for n := len(kept); n > 0 && (n > maxFiles || total > maxTotal); n = len(kept) {
		os.Remove(filepath.Join(s.dir, kept[0].Name()))
		total -= kept[0].Size()
		kept = kept[1:]
	}
	return nil
}
