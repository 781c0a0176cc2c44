package report

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxText bounds one string from the target, in runes; a longer one is cut visibly.
const maxText = 1024

// visible makes a string from outside safe to print: what is not printable
// (controls, newlines, bidi overrides, zero-width and private characters,
// every space but the ASCII one) appears as \x1b or \u202e, a byte that is not
// UTF-8 as \xff. Backslashes stay single: PHP's namespaces are full of them.
func visible(s string) string {
	plain := len(s) <= maxText
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] <= '~'
	}
	if plain {
		return s
	}
	var b strings.Builder
	for n := 0; len(s) > 0; n++ {
		if n == maxText {
			b.WriteString("…")
			break
		}
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case strconv.IsPrint(r):
			b.WriteString(s[:size])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

// number is n with thousands separators.
func number[T int | int64 | uint64](n T) string {
	s := fmt.Sprint(n)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	var b strings.Builder
	b.WriteString(sign)
	for i := range len(s) {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// size is n bytes as a person says it: exact below 10 KiB, else in binary units.
func size(n uint64) string {
	if n < 10<<10 {
		return number(n) + " bytes"
	}
	v := float64(n)
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if v /= 1024; v < 999.95 {
			return fmt.Sprintf("%.1f %s", v, unit)
		}
	}
	return fmt.Sprintf("%.1f EiB", v/1024)
}

// duration is a time in microseconds as a person says it.
func duration(us int64) string {
	switch {
	case us == 0:
		return "0 ms"
	case us < 1000:
		return fmt.Sprintf("%.2f ms", float64(us)/1000)
	case us < 1_000_000:
		return fmt.Sprintf("%.1f ms", float64(us)/1000)
	case us < 120_000_000:
		return fmt.Sprintf("%.1f s", float64(us)/1e6)
	case us < 2*3600*1_000_000:
		return fmt.Sprintf("%d min", us/60_000_000)
	}
	return fmt.Sprintf("%s h", number(us/3_600_000_000))
}

// count is "1 stop" or "1,200 stops".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return number(n) + " " + noun + "s"
}
