package rules

import (
	"encoding/binary"
	"strings"
	"unicode/utf16"
)

// Text that somebody pasted has been through terminals, pagers and other systems: gdb
// colours what it prints to a terminal, script(1) and pagers keep that, terminals pad
// lines with blanks, and PowerShell redirects as UTF-16. None of that is part of a name.

// escape is a control sequence of a terminal (ECMA-48): CSI such as colours, OSC such as
// titles and links, and the short ones.
var escape = lazily(`\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]+[0-~]|[0-Z\\^-~])`)

// erased is what a backspace takes back: pagers fold a line with a blank that they erase.
var erased = lazily(`[^\x08]\x08`)

const lineEnd = " \t\r\n"

// plainLine is a line without its end, trailing blanks, and what a terminal obeys.
func plainLine(s string) string {
	s = strings.TrimRight(s, lineEnd)
	if strings.IndexFunc(s, isControl) >= 0 {
		s = escape().ReplaceAllString(s, "")
		s = erased().ReplaceAllString(s, "")
		s = strings.TrimRight(s, lineEnd)
		// What a pager's prompt had on this line was overwritten.
		s = s[strings.LastIndexByte(s, '\r')+1:]
		s = strings.Map(func(r rune) rune {
			if isControl(r) {
				return -1
			}
			return r
		}, s)
	}
	return strings.TrimRight(s, lineEnd)
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// decodeBOM is text in UTF-8, without the mark by which text begins that says how it
// is encoded.
func decodeBOM(s string) string {
	var order binary.ByteOrder
	switch {
	case strings.HasPrefix(s, "\ufeff"):
		return strings.TrimPrefix(s, "\ufeff")
	case strings.HasPrefix(s, "\xff\xfe"):
		order = binary.LittleEndian
	case strings.HasPrefix(s, "\xfe\xff"):
		order = binary.BigEndian
	default:
		return s
	}
	b := []byte(s[2:])
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}
