package zend

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxShown is how much of a string is shown, in bytes.
const maxShown = 64

// Redacted stands in the place of a secret.
const Redacted = "[redacted]"

// Value is a variable of a frame as it may be shown: a secret's content is not
// in it, nor its length.
type Value struct {
	Name     string // "$row"; "#3" for the third argument, when it has no name
	Kind     ValueKind
	Type     string
	Text     string // as code would write it, printable and bounded
	Redacted bool

	bits uint64
	size uint64
}

// Compare orders two values of a variable: numbers by themselves, strings and
// arrays by their size. ok is false for what has no order.
func (v *Value) Compare(o *Value) (order int, ok bool) {
	if v.Type != o.Type || v.Redacted || o.Redacted {
		return 0, false
	}
	switch v.Type {
	case TypeInt:
		return cmp.Compare(int64(v.bits), int64(o.bits)), true
	case TypeFloat:
		a, b := math.Float64frombits(v.bits), math.Float64frombits(o.bits)
		return cmp.Compare(a, b), !math.IsNaN(a) && !math.IsNaN(b)
	case TypeString, TypeArray:
		return cmp.Compare(v.size, o.size), true
	}
	return 0, false
}

// show makes values of what was read of one stack.
func show(frames [][]raw) [][]Value {
	secrets := secretsOf(frames)
	out := make([][]Value, len(frames))
	for i, f := range frames {
		if f == nil {
			continue
		}
		out[i] = make([]Value, len(f))
		for j := range f {
			out[i][j] = shown(&f[j], secrets)
		}
	}
	return out
}

// shown is a value's presentable form.
func shown(w *raw, s *secrets) Value {
	v := Value{Name: w.name, Kind: w.kind, Type: w.typ, bits: w.bits, size: w.size}
	switch w.typ {
	case TypeUndef:
		v.Text = "undefined" // that there is no value is no secret
		return v
	case "": // a remark
		v.Text = w.class
		return v
	}
	if w.private() || w.typ == TypeString && s.has(w) {
		return Value{Name: w.name, Kind: w.kind, Type: w.typ, Text: Redacted, Redacted: true}
	}
	switch w.typ {
	case TypeNull:
		v.Text = "null"
	case TypeBool:
		v.Text = strconv.FormatBool(w.bits != 0)
	case TypeInt:
		v.Text = strconv.FormatInt(int64(w.bits), 10)
	case TypeFloat:
		v.Text = float(math.Float64frombits(w.bits))
	case TypeString:
		v.Text = quote(w.text, w.size)
	case TypeArray:
		v.Text = fmt.Sprintf("array(%d)", w.size)
	case TypeObject:
		v.Text = fmt.Sprintf("object(%s)#%d", escape(w.class, 0), w.bits)
	case TypeResource:
		v.Text = fmt.Sprintf("resource(%d)", w.bits)
	case TypeConstant:
		v.Text = "constant expression"
	default:
		v.Text = "unreadable"
	}
	return v
}

// float writes a number as var_export does with serialize_precision=-1
// (smart_str_append_double in Zend/zend_smart_str.c).
func float(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NAN"
	case math.IsInf(f, 1):
		return "INF"
	case math.IsInf(f, -1):
		return "-INF"
	}
	s := strconv.FormatFloat(f, 'e', -1, 64)
	mantissa, exp, _ := strings.Cut(s, "e")
	n, _ := strconv.Atoi(exp)
	if n >= -4 && n < 17 {
		if s = strconv.FormatFloat(f, 'f', -1, 64); !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	}
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	return fmt.Sprintf("%sE%+d", mantissa, n)
}

// quote shows the beginning of a string of size bytes.
func quote(text string, size uint64) string {
	cut := false
	if len(text) > maxShown {
		n := maxShown
		// Not in the middle of a character.
		for i := 1; i < utf8.UTFMax && n-i > 0; i++ {
			if r, w := utf8.DecodeRuneInString(text[n-i:]); r != utf8.RuneError && w > i {
				n -= i
				break
			}
		}
		text, cut = text[:n], true
	}
	s := `"` + escape(text, '"')
	if cut || size > uint64(len(text)) {
		return fmt.Sprintf(`%s%s" (%s bytes)`, s, cutMark, thousands(size))
	}
	return s + `"`
}

// escape spells out what is not printable as PHP's double quotes do, so that
// two different strings never look the same.
func escape(s string, quote rune) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case quote != 0 && (r == quote || r == '\\'):
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case strconv.IsPrint(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
		s = s[n:]
	}
	return b.String()
}

// thousands writes n with separators.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
