//go:build ignore

// Convert writes the tables of this directory.
//
//	go run ./internal/zend/layouts/convert.go -from DIR -to internal/zend/layouts
//
// DIR holds one JSON file for each build of PHP, php-VERSION-VARIANT.json, with
// everything that the build's DWARF (gcc -O0 -g3) says of Zend's structs:
// "php_version", "variant", "structs" (name → member path → [offset, size] in
// bytes, "@size" for the struct), "constants" (macro → its text) and "opcodes"
// (number → name). What package zend doesn't read is left out.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// wanted are the members that package zend reads, of PHP 7 and 8, or of 5.6.
var wanted = map[string][]string{
	"_Bucket": {"key", "val"},
	"_sapi_globals_struct": {
		"global_request_time", "request_info.path_translated", "request_info.query_string", "request_info.request_method", "request_info.request_uri", "sapi_started",
	},
	"_zend_array":       {"arData", "nNumOfElements", "nNumUsed", "u.flags"},
	"_zend_class_entry": {"name"},
	"_zend_execute_data": {
		"This", "This.u1.type_info", "This.u2.num_args", "This.value.obj", "call", "func", "opline", "prev_execute_data", "symbol_table",
		"function_state.arguments", "function_state.function", "nested", "object", "op_array",
	},
	"_php_output_handler": {"buffer.size", "buffer.used"},
	"_zend_executor_globals": {
		"active_fiber", "current_execute_data", "exception_op", "flags", "main_fiber_context", "opline_before_exception", "vm_stack", "vm_stack_end", "vm_stack_top", "argument_stack", "objects_store",
	},
	"_zend_fiber":             {"caller", "context"},
	"_zend_fiber_context":     {"handle", "stack"},
	"_zend_generator":         {"execute_data", "execute_fake", "node.parent"},
	"_zend_internal_arg_info": {"name"},
	"_zend_internal_function": {"handler", "module"},
	"_zend_gc_globals": {
		"buf_size", "collected", "collector_time", "gc_active", "gc_enabled", "gc_protected", "gc_runs", "gc_threshold", "num_roots",
	},
	"_zend_mm_chunk":        {"heap", "heap_slot"},
	"_zend_mm_heap":         {"custom_heap", "limit", "main_chunk", "peak", "real_peak", "real_size", "size", "storage", "use_custom_heap"},
	"_zend_mm_mem_handlers": {"name"},
	"_zend_mm_storage":      {"handlers"},
	"_zend_module_entry":    {"build_id", "name", "version", "zend_api", "zend_debug", "zts"},
	"_zend_op":              {"extended_value", "lineno", "opcode"},
	"_zend_object":          {"ce", "handle"},
	"_zend_op_array": {
		"T", "arg_info", "attributes", "filename", "fn_flags", "function_name", "last", "last_var", "line_end", "line_start", "num_args", "opcodes",
		"scope", "type", "vars",
	},
	"_zend_output_globals": {"active", "handlers.top"},
	"_zend_reference":      {"val"},
	"_zend_string":         {"len", "val"},
}

var constants = []string{
	"ZEND_ACC_CALL_VIA_TRAMPOLINE", "ZEND_ACC_CLOSURE", "ZEND_ACC_GENERATOR", "ZEND_CALL_CODE", "ZEND_CALL_TOP",
	"ZEND_EVAL_CODE", "ZEND_INTERNAL_FUNCTION", "ZEND_USER_FUNCTION",
}

// source is one build's file.
type source struct {
	Version   string                                `json:"php_version"`
	Variant   string                                `json:"variant"`
	Structs   map[string]map[string]json.RawMessage `json:"structs"`
	Constants map[string]string                     `json:"constants"`
	Opcodes   map[string]string                     `json:"opcodes"`
}

// table is what the file becomes.
type table struct {
	Constants map[string]uint32                     `json:"constants"`
	PHP       string                                `json:"php"`
	Structs   map[string]map[string]json.RawMessage `json:"structs"`
	Variant   string                                `json:"variant"`
}

func main() {
	from := flag.String("from", "", "directory of php-VERSION-VARIANT.json files")
	to := flag.String("to", ".", "directory to write to")
	flag.Parse()
	files, err := filepath.Glob(filepath.Join(*from, "php-*.json"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no php-*.json in %q", *from)
	}
	for _, f := range files {
		err = errors.Join(err, convert(f, *to))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func convert(file, to string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var src source
	if err := json.Unmarshal(b, &src); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	parts := strings.Split(src.Version, ".")
	if len(parts) != 3 {
		return fmt.Errorf("%s: version %q", file, src.Version)
	}
	minor := parts[0] + "." + parts[1]
	t := table{PHP: src.Version, Variant: src.Variant, Structs: pick(src.Structs)}
	if t.Constants, err = evaluate(src.Constants, minor); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	ops, err := opcodes(src.Opcodes)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return errors.Join(
		write(filepath.Join(to, minor+"-"+src.Variant+".json"), t),
		write(filepath.Join(to, "opcodes-"+minor+".json"), ops),
	)
}

func pick(structs map[string]map[string]json.RawMessage) map[string]map[string]json.RawMessage {
	out := make(map[string]map[string]json.RawMessage)
	for name, members := range wanted {
		for _, m := range members {
			v, ok := structs[name][m]
			if !ok {
				continue // of another version
			}
			if out[name] == nil {
				out[name] = map[string]json.RawMessage{"@size": structs[name]["@size"]}
			}
			out[name][m] = v
		}
	}
	return out
}

var shifted = regexp.MustCompile(`^\(?(0x[0-9a-f]+|[0-9]+)[uU]?(?:\s*<<\s*([0-9]+)\))?$`)

// callShift is ZEND_CALL_INFO_SHIFT: where in zval.u1.type_info the ZEND_CALL_*
// bits begin. From 7.4 on they are written in their place (Zend/zend_compile.h).
var callShift = map[string]int{"7.0": 24, "7.1": 16, "7.2": 16, "7.3": 16}

// evaluate computes the macros.
func evaluate(macros map[string]string, minor string) (map[string]uint32, error) {
	out := make(map[string]uint32)
	for _, name := range constants {
		text, ok := macros[name]
		if !ok {
			continue // of another version
		}
		m := shifted.FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf("%s is %q", name, text)
		}
		v, err := strconv.ParseUint(m[1], 0, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		shift := 0
		if m[2] != "" {
			if shift, err = strconv.Atoi(m[2]); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		if strings.HasPrefix(name, "ZEND_CALL_") {
			shift += callShift[minor]
		}
		out[name] = uint32(v << shift)
	}
	return out, nil
}

// opcodes makes a list of the names, "" where a number is not used.
func opcodes(names map[string]string) ([]string, error) {
	out := make([]string, 0, 256)
	for k, name := range names {
		n, err := strconv.ParseUint(k, 10, 8)
		if err != nil {
			return nil, err
		}
		for len(out) <= int(n) {
			out = append(out, "")
		}
		out[n] = name
	}
	return out, nil
}

func write(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
