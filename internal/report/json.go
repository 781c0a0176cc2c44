package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON writes r as one line of JSON.
func JSON(w io.Writer, r *Report) error { return writeJSON(w, r) }

// DoctorJSON writes d as one line of JSON.
func DoctorJSON(w io.Writer, d *Doctor) error { return writeJSON(w, d) }

func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escapeInvisible(b.Bytes()))
	return err
}

// escapeInvisible writes what encoding/json leaves as it is but a terminal
// would obey (DEL, C1 controls, bidi overrides and other format characters) as
// \uXXXX. Outside strings JSON has none of them, so the values stay the same.
func escapeInvisible(in []byte) []byte {
	out := make([]byte, 0, len(in))
	for len(in) > 0 {
		r, n := utf8.DecodeRune(in)
		if r >= utf8.RuneSelf-1 && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			if hi, lo := utf16.EncodeRune(r); hi != unicode.ReplacementChar {
				out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
			} else {
				out = fmt.Appendf(out, `\u%04x`, r)
			}
		} else {
			out = append(out, in[:n]...)
		}
		in = in[n:]
	}
	return out
}
