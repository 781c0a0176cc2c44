// Package symname brings the many spellings of one C function to one
// canonical name, so that a rule written for mremap also knows
// __GI___mremap, and one for zend_string_extend its .part.0.
//
// Contract: pure string functions; the raw name stays with the caller.
// Non-goal: demangling, which package symbolize does.
package symname

import "strings"

// gccSuffixes are what gcc and LTO append to the name of a clone. Each may be
// followed by digits and repeat.
var gccSuffixes = []string{".part", ".constprop", ".isra", ".cold", ".lto_priv", ".localalias", ".llvm"}

// aliases maps glibc's and musl's internal names to the documented function.
var aliases = map[string]string{
	"mmap64": "mmap", "open64": "open", "openat64": "openat", "creat64": "creat",
	"pread64": "pread", "pwrite64": "pwrite", "lseek64": "lseek", "fcntl64": "fcntl",
	"sendfile64": "sendfile",
}

// libcNames are functions that glibc also defines with leading underscores
// (__read, __libc_read, __GI___libc_read). Only these lose them: in PHP an
// underscore tells two functions apart (_erealloc2, __zend_malloc).
var libcNames = set(`accept bind brk calloc clock_gettime clock_nanosleep close connect dup dup2
	epoll_wait fcntl flock fopen fork free fsync ftruncate getaddrinfo getpid ioctl kill listen lseek
	lstat madvise malloc memalign memcpy memmove memset mmap mprotect mremap munmap nanosleep open openat
	pause pipe poll ppoll pread pselect pthread_cond_wait pthread_mutex_lock pwrite raise read readv realloc
	recv recvfrom recvmsg rename sched_yield select send sendmsg sendto sigaction sigsuspend sleep socket
	stat strchr strlen strcmp strncmp system tgkill usleep vfork wait wait4 waitid waitpid write writev`)

func set(words string) map[string]bool {
	m := make(map[string]bool)
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// Canonical returns the canonical form of a symbol's name. It is idempotent.
func Canonical(raw string) string {
	s := raw
	// A symbol version, name@@GLIBC_2.2.5; but name@plt is the stub, not the function.
	if i := strings.IndexByte(s, '@'); i > 0 && s[i:] != "@plt" {
		s = s[:i]
	}
	if strings.HasSuffix(s, "@plt") {
		return s
	}
	s = trimClone(s)
	base := strings.TrimPrefix(s, "__GI_")
	if name, ok := libcName(base); ok {
		return name
	}
	return base
}

// trimClone removes gcc's clone suffixes.
func trimClone(s string) string {
	for {
		cut := trimOne(s)
		if cut == s || cut == "" {
			return s
		}
		s = cut
	}
}

func trimOne(s string) string {
	t := strings.TrimRight(s, "0123456789")
	if t != s {
		if !strings.HasSuffix(t, ".") {
			return s
		}
		t = strings.TrimSuffix(t, ".")
	}
	for _, suf := range gccSuffixes {
		if c, ok := strings.CutSuffix(t, suf); ok {
			return c
		}
	}
	return s
}

// libcName resolves underscores, 64-suffixes and the string functions'
// processor-specific variants.
func libcName(s string) (string, bool) {
	t := strings.TrimLeft(s, "_")
	t = strings.TrimPrefix(t, "libc_")
	t = strings.TrimPrefix(t, "GI_")
	t = strings.TrimSuffix(t, "_nocancel")
	if a, ok := aliases[t]; ok {
		t = a
	}
	if libcNames[t] {
		return t, true
	}
	// __memmove_avx_unaligned_erms, __strlen_avx2, __memset_evex_unaligned
	if strings.HasPrefix(s, "__") {
		if name, variant, ok := strings.Cut(t, "_"); ok && libcNames[name] {
			for _, isa := range []string{"sse", "avx", "evex", "erms", "ssse", "generic", "unaligned"} {
				if strings.HasPrefix(variant, isa) {
					return name, true
				}
			}
		}
	}
	return s, false
}
