package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// maxCompare bounds how much of a mapping is compared with a file, in bytes.
	maxCompare = 32 << 20
	// maxPatched is how many bytes of code may differ in a file that still is
	// the mapped one: breakpoints, ours and those of others, are in memory only.
	// They are set in large libraries; in less than minPatched bytes of code so
	// small a difference may be all there is between two versions.
	maxPatched = 32
	minPatched = 64 << 10
	// maxTails bounds the folders that are taken off the front of a path.
	maxTails = 64
)

// OpenMapped opens the very file that is mapped at m, also when it was
// replaced or deleted since, and also in another mount namespace.
// The caller closes it.
func (p *Process) OpenMapped(m remote.Mapping) (*os.File, error) {
	f, err := os.Open(p.path(fmt.Sprintf("map_files/%x-%x", uint64(m.Start), uint64(m.End))))
	if err == nil {
		return f, nil
	}
	// map_files wants CAP_CHECKPOINT_RESTORE; what follows is the way without it,
	// provided that the file there still is the one that is mapped.
	errs := []error{err}
	for _, path := range tails(m.Path) {
		f, err := p.same(m)(p.OpenInRoot(path))
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || path == m.Path {
			errs = append(errs, err)
		}
	}
	if f, err := p.same(m)(os.Open(p.path("exe"))); err == nil { // also when it is deleted
		return f, nil
	}
	return nil, fmt.Errorf("open %s as mapped by %d: %w", m.Path, p.PID, errors.Join(errs...))
}

// tails are the paths that a file may have in a process's root directory. The
// kernel shows it as seen from ours when both are in one mount namespace, so a
// process in a chroot knows /srv/jail/usr/bin/php as /usr/bin/php.
func tails(path string) []string {
	out := []string{path}
	for rest := path; len(out) < maxTails; {
		i := strings.IndexByte(rest[min(1, len(rest)):], '/')
		if i < 0 {
			break
		}
		rest = rest[i+1:]
		out = append(out, rest)
	}
	return out
}

// same passes on a file that is the one mapped at m and refuses others. By
// number that shows only where both are the same: on overlayfs the device
// differs between stat and maps, and before Linux 6.8 the inode may. Then the
// bytes decide: a file that has the same code is as good.
func (p *Process) same(m remote.Mapping) func(*os.File, error) (*os.File, error) {
	return func(f *os.File, err error) (*os.File, error) {
		if err != nil {
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			_ = f.Close()
			return nil, err
		}
		if st.Ino == m.Inode && st.Dev == m.Dev {
			return f, nil
		}
		if err := p.compare(f, m); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("%s is another file now (inode %d, mapped is %d): %w", f.Name(), st.Ino, m.Inode, err)
		}
		return f, nil
	}
}

// errDiffers says that a file's bytes are not those in memory.
var errDiffers = errors.New("its bytes differ from those in memory")

// compare compares a file with what is mapped at m.
func (p *Process) compare(f *os.File, m remote.Mapping) error {
	if m.Write {
		return errDiffers // nothing can be said
	}
	mem, err := p.Memory()
	if err != nil {
		return err
	}
	defer mem.Close()
	n, ok := m.End.Distance(m.Start)
	if !ok {
		return errDiffers
	}
	const step = 1 << 18
	there, here := make([]byte, step), make([]byte, step)
	differ, most := 0, maxPatched
	if n < minPatched {
		most = 0
	}
	for done := uint64(0); done < min(n, maxCompare); done += step {
		want := int(min(step, n-done))
		at, ok := m.Start.Add(done)
		if !ok {
			return errDiffers
		}
		// Beyond the file's end a page in memory is zero, or can't be read.
		got, _ := mem.ReadMemory(there[:want], at)
		read, err := f.ReadAt(here[:want], int64(m.Offset+done))
		if err != nil && read == 0 || got == 0 {
			if done == 0 {
				return errDiffers
			}
			break
		}
		for i := range min(got, read) {
			if there[i] != here[i] {
				differ++
			}
		}
		if differ > most {
			return errDiffers
		}
	}
	return nil
}

// OpenInRoot opens a file by its path as the process sees it: in its mount
// namespace and its root directory. Whoever is root in there may have made the
// path, so that symbolic links are followed inside only, and nothing but a
// regular file is opened: opening a FIFO waits, opening a device acts.
// The caller closes it.
func (p *Process) OpenInRoot(path string) (*os.File, error) { return OpenIn(p.path("root"), path) }

// OpenIn is OpenInRoot for any folder that stands for a root directory.
func OpenIn(root, path string) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	defer func() { _ = unix.Close(dir) }()
	fail := func(err error) (*os.File, error) {
		return nil, &fs.PathError{Op: "open", Path: root + path, Err: err}
	}
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // before Linux 5.6, or an old seccomp profile
		return openBeneath(root, path)
	}
	if err != nil {
		return fail(err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fail(errNotRegular)
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return fail(errors.Unwrap(err))
	}
	return f, nil
}

// Duplicate opens another descriptor of the same open file. The caller closes it.
func Duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "duplicate", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

var errNotRegular = errors.New("not a regular file")

// openBeneath does it without openat2, and refuses absolute symbolic links.
func openBeneath(dir, path string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	name := strings.TrimLeft(path, "/")
	st, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	return root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
}
