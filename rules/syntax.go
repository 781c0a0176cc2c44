package rules

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// What is no YAML is reported where its author can see it. yaml.v3 says a line, but
// often another one, and for bytes that are no text none at all.

const (
	// maxUnreadable bounds the lines of a file that are reported for their bytes.
	maxUnreadable = 10
	// maxSought bounds what is read to find the line of a syntax error, in bytes.
	maxSought = 2 << 20
)

// readable reports the bytes that YAML does not allow.
func (d *decoder) readable() bool {
	if first := d.lines[0]; strings.HasPrefix(first, "\xff\xfe") || strings.HasPrefix(first, "\xfe\xff") {
		d.at(1, 1, codeYAML, "this is UTF-16; save the file as UTF-8")
		return false
	}
	found := 0
	for i, line := range d.lines {
		for at := 0; at < len(line); {
			r, size := utf8.DecodeRuneInString(line[at:])
			what := ""
			switch {
			case r == utf8.RuneError && size <= 1:
				what = "this is not UTF-8"
			case r < ' ' && r != '\t' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85, r == 0xfffe, r == 0xffff:
				what = "control characters are not accepted"
			}
			if what != "" {
				if found++; found <= maxUnreadable {
					d.at(i+1, 1+utf8.RuneCountInString(line[:at]), codeYAML, "%s (byte %#02x)", what, line[at])
				}
				break // one a line is enough
			}
			at += size
		}
	}
	return found == 0
}

// parserErrors are the messages of yaml.v3 that count lines from 0. Those of its
// scanner count from 1.
var parserErrors = []string{"did not find expected key", "did not find expected ',' or", "did not find expected '-' indicator",
	"did not find expected node content", "did not find expected <", "found undefined tag handle"}

var (
	lineError     = lazily(`^line (\d+): (.*)$`)
	unknownAnchor = lazily(`^unknown anchor '(.*)' referenced$`)
	// unquoted finds a value that was to be text, and that YAML takes for a mapping or
	// list: {{site}} grows, [draft] a title.
	unquoted = lazily(`^[\s-]*[\w.-]+:\s+(\{\{|\{[^{}]*\}\s*[^\s#,}\]]|\[[^\[\]]*\]\s*[^\s#,}\]])`)
)

// needsQuotes is what to do about a text that was taken for something else.
const needsQuotes = "; a text that begins with { or [ needs quotes"

// syntax reports why a file is no YAML.
func (d *decoder) syntax(err error) {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line, parser := 1, false
	for _, p := range parserErrors {
		parser = parser || strings.Contains(msg, p)
	}
	if m := lineError().FindStringSubmatch(msg); m != nil {
		msg = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
			if parser {
				line++
			}
		}
	}
	if parser {
		line = d.breaks(err, line)
	}
	if m := unknownAnchor().FindStringSubmatch(msg); m != nil {
		line = d.firstWith("*" + m[1])
		msg = "anchors and aliases are not accepted; a text that begins with * needs quotes"
	}
	line = min(max(line, 1), len(d.lines))
	for _, l := range []int{line, line - 1} {
		if l >= 1 && unquoted().MatchString(d.lines[l-1]) {
			d.at(l, 1, codeYAML, "%s", msg+needsQuotes)
			return
		}
	}
	d.at(line, 1, codeYAML, "%s%s", msg, remedy(msg, d.lines[line-1]))
}

var (
	// tabbed finds a line that is indented with a tab.
	tabbed = lazily(`^ *\t`)
	// reserved finds a text that begins with a character that YAML keeps for itself.
	reserved = lazily("[:-] +([@`%>*&])")
	// pair finds a text with a colon in it, which YAML takes for a mapping.
	pair = lazily(`^[\s-]*[\w.-]+:\s+[^\s"'#|>].*:(\s|$)`)
)

// remedy says what to do about a syntax error: yaml.v3 tells what its parser was
// missing, and not what the author did.
func remedy(msg, line string) string {
	switch m := reserved().FindStringSubmatch(line); {
	case strings.Contains(line, "\u00a0"):
		return "; there is a no-break space in this line, which is no blank"
	case tabbed().MatchString(line):
		return "; indent with blanks, YAML takes no tabs there"
	case m != nil && (strings.Contains(msg, "cannot start any token") || strings.Contains(msg, "alphabetic or numeric character") ||
		strings.Contains(msg, "comment or line break")):
		return fmt.Sprintf("; a text that begins with %s needs quotes", m[1])
	case strings.Contains(msg, "mapping values are not allowed") && pair().MatchString(line):
		return `; a text with ": " in it needs quotes`
	case strings.Contains(msg, "mapping values are not allowed"), strings.Contains(msg, "did not find expected key"),
		strings.Contains(msg, "did not find expected '-' indicator"), strings.Contains(msg, "could not find expected ':'"):
		return "; compare its indentation with that of the lines before"
	case strings.Contains(msg, "found unexpected end of stream"):
		return "; a quote is not closed"
	}
	return ""
}

// breaks finds the line at which a file stops to be YAML: yaml.v3 names where the
// mapping or list began instead.
func (d *decoder) breaks(err error, named int) int {
	text := strings.Join(d.lines, "\n")
	if len(text)*len(d.lines) > maxSought {
		return named
	}
	bare := func(err error) string { return regexp.MustCompile(`line \d+: `).ReplaceAllString(err.Error(), "") }
	want := bare(err)
	// The last line that is needed: less of the file has no fault, or another.
	for n := len(d.lines) - 1; n > 0; n-- {
		if err := eachDocument(strings.Join(d.lines[:n], "\n"), func(*yaml.Node) {}); err == nil || bare(err) != want {
			return n + 1
		}
	}
	return 1
}

func (d *decoder) firstWith(s string) int {
	for i, l := range d.lines {
		if strings.Contains(l, s) {
			return i + 1
		}
	}
	return 1
}

// eachDocument visits the documents of a text up to the first that can't be read.
func eachDocument(text string, visit func(*yaml.Node)) error {
	dec := yaml.NewDecoder(strings.NewReader(text))
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		visit(&doc)
	}
}
