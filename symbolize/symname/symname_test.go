package symname

import "testing"

func TestCanonical(t *testing.T) {
	for raw, want := range map[string]string{
		"mremap": "mremap", "__mremap": "mremap", "__GI___mremap": "mremap",
		"mmap64": "mmap", "__mmap": "mmap", "__mmap64": "mmap", "__GI___mmap64": "mmap", "mmap@@GLIBC_2.2.5": "mmap", "memcpy@plt": "memcpy@plt",
		"__libc_realloc": "realloc", "__GI___libc_realloc": "realloc", "__libc_malloc": "malloc",
		"__memmove_avx_unaligned_erms": "memmove", "__strlen_avx2": "strlen", "__memset_evex_unaligned": "memset",
		"__poll": "poll", "__GI___poll": "poll", "__libc_accept": "accept", "__read_nocancel": "read",
		"__GI___clock_nanosleep":    "clock_nanosleep",
		"zend_string_extend.part.0": "zend_string_extend", "f.constprop.0.isra.2": "f", "execute_ex.cold": "execute_ex",
		"match.lto_priv.12": "match",
		// What must stay as it is.
		"_erealloc2": "_erealloc2", "__zend_malloc": "__zend_malloc", "_php_stream_fill_read_buffer": "_php_stream_fill_read_buffer",
		"_zend_mm_realloc_int": "_zend_mm_realloc_int", "mremap_chunk": "mremap_chunk", "__libc_start_main": "__libc_start_main",
		"ZEND_ASSIGN_OP_SPEC_CV_CONST_HANDLER": "ZEND_ASSIGN_OP_SPEC_CV_CONST_HANDLER", "pcre2_match_8": "pcre2_match_8",
		"memcpy_list": "memcpy_list", "__libc_start_call_main": "__libc_start_call_main", "": "", "_start": "_start",
		".cold": ".cold", "a.b.0": "a.b.0", "zend_read_property": "zend_read_property",
		"__lll_lock_wait_private": "__lll_lock_wait_private",
	} {
		got := Canonical(raw)
		if got != want {
			t.Errorf("%s is %q, want %q", raw, got, want)
		}
		if again := Canonical(got); again != got {
			t.Errorf("%s: canonical twice is %q, once %q", raw, again, got)
		}
	}
}
