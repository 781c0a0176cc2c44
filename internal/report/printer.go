package report

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

// style is an SGR parameter (ECMA-48, 8.3.117).
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "1;31"
	green  style = "1;32"
	yellow style = "1;33"
	cyan   style = "36"
)

// printer writes lines. Text enters by put, line and prose, which make it
// visible, so that no caller can forget to.
type printer struct {
	w     *bufio.Writer
	color bool
	width int
}

func newPrinter(w io.Writer, o TextOptions) *printer {
	return &printer{w: bufio.NewWriter(w), color: o.Color, width: o.Width}
}

// put writes text without a line's end.
func (p *printer) put(s style, text string) { p.emit(s, visible(text)) }

// emit writes text that is visible already.
func (p *printer) emit(s style, text string) {
	if p.color && s != plain && text != "" {
		text = "\x1b[" + string(s) + "m" + text + "\x1b[0m"
	}
	p.w.WriteString(text) // bufio keeps the first error until Flush
}

func (p *printer) end() { p.w.WriteByte('\n') }

// line writes one whole line.
func (p *printer) line(s style, text string) { p.put(s, text); p.end() }

// maxProse bounds one paragraph, in bytes.
const maxProse = 8 << 10

// prose writes a paragraph that begins with lead, wrapped at the width;
// further lines are indented as deep as lead is long. It breaks at the spaces
// alone: a newline in somebody's name is part of the name.
func (p *printer) prose(lead string, s style, text string) {
	p.put(plain, lead)
	p.wrap(utf8.RuneCountInString(lead), s, text)
}

// wrap is prose whose lead, indent columns wide, is written already.
func (p *printer) wrap(indent int, s style, text string) {
	var line strings.Builder
	col := indent
	flush := func() { p.emit(s, line.String()); p.end(); line.Reset(); col = indent }
	for word := range strings.SplitSeq(cut(text), " ") {
		if word == "" {
			continue
		}
		word = visible(word)
		n := utf8.RuneCountInString(word)
		if line.Len() > 0 && p.width > 0 && col+1+n > p.width {
			flush()
			p.put(plain, strings.Repeat(" ", indent))
		}
		if line.Len() > 0 {
			line.WriteByte(' ')
			col++
		}
		line.WriteString(word)
		col += n
	}
	flush()
}

// cut keeps a paragraph within maxProse, whole runes only.
func cut(text string) string {
	if len(text) <= maxProse {
		return text
	}
	n := maxProse
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + " …"
}
