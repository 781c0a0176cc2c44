package report

import "strings"

// From these on the engine's state is worth a word: bytes of memory, or this
// share of its limit; bytes held back in an output buffer; PHP frames.
const (
	muchMemory   = 64 << 20
	muchOfLimit  = 0.5
	muchBuffered = 1 << 20
	deepStack    = 1000
)

// engine says what is out of the ordinary in PHP's own state.
func engine(facts map[string]any) []string {
	var out []string
	used, known := facts["php.memory_usage"].(int64)
	limit, limited := facts["php.memory_limit"].(int64)
	switch {
	case !known || used < 0 || limit < 0:
	case limited && float64(used) >= muchOfLimit*float64(limit):
		out = append(out, size(uint64(used))+" of memory in use, of "+size(uint64(limit)))
	case used >= muchMemory && limited:
		out = append(out, size(uint64(used))+" of memory in use, of "+size(uint64(limit)))
	case used >= muchMemory:
		out = append(out, size(uint64(used))+" of memory in use, without a limit")
	}
	if active, _ := facts["php.gc_active"].(bool); active {
		s := "a collection of cycles is running"
		if roots, ok := facts["php.gc_roots"].(int64); ok {
			s += ", with " + count(int(roots), "root")
		}
		out = append(out, s)
	}
	if held, _ := facts["php.output_buffer_bytes"].(int64); held > muchBuffered {
		s := size(uint64(held)) + " held back in an output buffer"
		if level, _ := facts["php.output_buffer_level"].(int64); level > 1 {
			s += ", one of " + number(int(level))
		}
		out = append(out, s)
	}
	if a, _ := facts["php.allocator"].(string); a != "" && a != "zend_mm" && !strings.HasPrefix(a, "zend_mm:") {
		out = append(out, "memory comes from "+a)
	}
	if s := phases[text(facts["php.phase"])]; s != "" {
		out = append(out, s)
	}
	if n, _ := facts["php.frames"].(int64); n >= deepStack {
		s := count(int(n), "PHP frame")
		if exact, _ := facts["php.frames_exact"].(bool); !exact {
			s = "at least " + s
		}
		out = append(out, s)
	}
	return out
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// phases are those other than the main script.
var phases = map[string]string{
	"shutdown":   "the script has ended, its shutdown functions and handlers run",
	"destructor": "the script has ended, a destructor runs",
}
