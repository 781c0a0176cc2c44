package rules

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
)

// template is a message with {{name}} or {{name|filter}} in it.
type template struct {
	source string
	text   []string // text[i] precedes names[i]
	names  []string
	pipe   []string
}

var placeholder = regexp.MustCompile(`\{\{([^{}]*)\}\}`)

// filters turn a value into text for people.
var filters = map[string]func(any) string{
	"bytes": func(v any) string { return humanBytes(toFloat(v)) },
	"int":   func(v any) string { return thousands(int64(toFloat(v))) },
	"secs":  func(v any) string { return humanSeconds(toFloat(v)) },
}

// parseTemplate reads a message, and says all that is wrong with it.
func parseTemplate(s string, bound bindings) (*template, []error) {
	t := &template{source: s}
	var bad []error
	at := 0
	for _, m := range placeholder.FindAllStringSubmatchIndex(s, -1) {
		name, pipe, piped := strings.Cut(s[m[2]:m[3]], "|")
		name, pipe = strings.TrimSpace(name), strings.TrimSpace(pipe)
		typ, known := bound[name]
		if !known && bound != nil {
			bad = append(bad, fmt.Errorf("{{%s}} is bound nowhere: neither in bind nor by as=%s", name, toBind(name, bound)))
		}
		if _, ok := filters[pipe]; piped && !ok {
			all := slices.Sorted(maps.Keys(filters))
			bad = append(bad, fmt.Errorf("no filter is called %q%s; there are %s", pipe, didYouMean(pipe, all), strings.Join(all, ", ")))
		}
		if piped && filters[pipe] != nil && typ != nil && !numeric(typ) {
			bad = append(bad, fmt.Errorf("{{%s|%s}} needs a number, and %s is of type %s", name, pipe, name, typ))
		}
		t.text = append(t.text, s[at:m[0]])
		t.names = append(t.names, name)
		t.pipe = append(t.pipe, pipe)
		at = m[1]
	}
	t.text = append(t.text, s[at:])
	if rest := placeholder.ReplaceAllString(s, ""); strings.Contains(rest, "{{") || strings.Contains(rest, "}}") {
		bad = append(bad, errors.New("{{ and }} don't pair up"))
	}
	return t, bad
}

// toBind says how to get at what a message wants to show: messages see names, and
// names see evidence.
func toBind(name string, bound bindings) string {
	if _, short, ok := strings.Cut(name, "."); ok && evidence[name].typ != nil {
		return fmt.Sprintf("; add bind: {%s: %s} and write {{%s}}", short, name, short)
	}
	return didYouMean(name, slices.Sorted(maps.Keys(bound)))
}

// numeric reports whether filters can show values of a type: numbers, and what may
// turn out to be one.
func numeric(t *cel.Type) bool {
	switch t.Kind() {
	case cel.IntKind, cel.UintKind, cel.DoubleKind, cel.DynKind, cel.AnyKind:
		return true
	}
	return false
}

func (t *template) render(vals map[string]any) string {
	var b strings.Builder
	for i, name := range t.names {
		b.WriteString(t.text[i])
		v, ok := vals[name]
		switch {
		case !ok:
			b.WriteString("(unknown)")
		case t.pipe[i] != "":
			b.WriteString(filters[t.pipe[i]](v))
		default:
			b.WriteString(plain(v))
		}
	}
	b.WriteString(t.text[len(t.text)-1])
	return b.String()
}

func plain(v any) string {
	switch n := v.(type) {
	case int64:
		return thousands(n)
	case float64:
		return fmt.Sprintf("%.4g", n)
	}
	return fmt.Sprint(v)
}

func toFloat(v any) float64 {
	switch n := v.(type) {
	case int64:
		return float64(n)
	case uint64:
		return float64(n)
	case float64:
		return n
	}
	return 0
}

// humanBytes writes a size with a binary unit.
func humanBytes(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for n >= 1024 && i < len(units)-1 {
		n /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%.0f B", n)
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}

// humanSeconds writes a time in seconds, short ones with a decimal.
func humanSeconds(n float64) string {
	if n < 10 {
		return fmt.Sprintf("%.1f s", n)
	}
	return thousands(int64(n)) + " s"
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}
