package rules

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	// maxFile bounds a rule file in bytes, maxDepth its nesting.
	maxFile  = 1 << 20
	maxDepth = 32
)

// decoder reads YAML nodes strictly and collects every problem.
type decoder struct {
	file     string
	path     string    // below the source's folder
	prepared *prepared // what was read at an earlier time
	trusted  bool      // expressions are compiled when they are first needed
	lines    []string
	problems []Problem
	// refused are the nodes that can't be read, and about which a problem says why.
	refused map[*yaml.Node]bool
	// blind is set when a name may have been bound where it could not be read.
	blind bool
	// keys, when not nil, is filled with the keys that each kind of mapping knows,
	// for the test that holds the JSON Schema to them.
	keys map[string][]string
}

func (d *decoder) addf(n *yaml.Node, code, format string, args ...any) {
	line, col := 1, 1
	if n != nil {
		line, col = max(n.Line, 1), max(n.Column, 1)
	}
	d.at(line, col, code, format, args...)
}

func (d *decoder) at(line, col int, code, format string, args ...any) {
	d.problems = append(d.problems, Problem{d.file, line, col, code, fmt.Sprintf(format, args...)})
}

// indent is the width of the white space that a line begins with.
func (d *decoder) indent(line int) int {
	if line < 1 || line > len(d.lines) {
		return 0
	}
	return len(d.lines[line-1]) - len(strings.TrimLeft(d.lines[line-1], " "))
}

// document parses a file into its one top-level mapping.
func (d *decoder) document(b []byte) *yaml.Node {
	if len(b) > maxFile {
		d.at(1, 1, codeYAML, "the file is larger than %d bytes", maxFile)
		return nil
	}
	d.lines = strings.Split(string(b), "\n")
	if doc := d.prepared.doc(d.path, b); doc != nil {
		return doc
	}
	if !d.readable() {
		return nil
	}
	var docs []*yaml.Node
	if err := eachDocument(string(b), func(n *yaml.Node) { docs = append(docs, n) }); err != nil {
		d.syntax(err)
		return nil
	}
	if len(docs) == 0 || len(docs) == 1 && docs[0].Content[0].Tag == "!!null" {
		d.at(1, 1, codeYAML, "the file is empty")
		return nil
	}
	if len(docs) > 1 {
		d.addf(docs[1], codeYAML, "one file holds one document")
	}
	root := docs[0].Content[0]
	if root.Kind != yaml.MappingNode {
		d.addf(root, codeYAML, "the file is not a mapping")
		return nil
	}
	d.refused = make(map[*yaml.Node]bool)
	d.acceptable(root, 0)
	return root
}

// acceptable refuses what makes YAML treacherous: anchors, aliases, tags, merge
// keys and endless nesting. The rest of the file is read all the same.
func (d *decoder) acceptable(n *yaml.Node, depth int) {
	switch {
	case depth > maxDepth:
		d.refused[n] = true
		d.addf(n, codeYAML, "nested deeper than %d levels", maxDepth)
		return
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.addf(n, codeYAML, "anchors and aliases are not accepted")
	case n.Style&yaml.TaggedStyle != 0:
		d.refused[n] = n.Kind == yaml.ScalarNode
		d.addf(n, codeYAML, "tags such as %s are not accepted; put a text in quotes", n.Tag)
	case n.Tag == "!!merge":
		d.addf(n, codeYAML, "merge keys are not accepted")
	}
	if n.Kind == yaml.AliasNode {
		d.refused[n] = true
		return
	}
	for _, c := range n.Content {
		d.acceptable(c, depth+1)
	}
}

// is reports whether a node is of a kind, and what it should be if it isn't. Of a
// node that was refused enough has been said.
func (d *decoder) is(n *yaml.Node, kind yaml.Kind, format string, args ...any) bool {
	if d.refused[n] {
		return false
	}
	if n.Kind != kind {
		if kind == yaml.ScalarNode && n.Style&yaml.FlowStyle != 0 {
			format += needsQuotes
		}
		d.addf(n, codeType, format, args...)
	}
	return n.Kind == kind
}

// fields maps keys to what reads their values.
type fields map[string]func(*yaml.Node)

func (f fields) names() []string { return slices.Sorted(maps.Keys(f)) }

// mapping reads a mapping with known keys.
func (d *decoder) mapping(n *yaml.Node, what string, f fields, required ...string) {
	if !d.is(n, yaml.MappingNode, "%s is a mapping", what) {
		return
	}
	if d.keys != nil {
		d.keys[what] = f.names()
	}
	seen := d.pairs(n, func(k, v *yaml.Node) {
		read, ok := f[k.Value]
		if !ok {
			d.blind = true // whatever it was to bind
			d.addf(k, codeUnknown, "unknown key %q in %s%s", k.Value, what, didYouMean(k.Value, f.names()))
			return
		}
		read(v)
	})
	for _, r := range required {
		// What a merge key would bring is not known.
		if !seen[r] && !seen["<<"] {
			d.addf(n, codeMissing, "%s needs %s", what, r)
		}
	}
}

// pairs visits the keys of a mapping once each.
func (d *decoder) pairs(n *yaml.Node, visit func(k, v *yaml.Node)) map[string]bool {
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Tag == "!!merge" || d.refused[k] {
			d.blind, seen["<<"] = true, true
			continue
		}
		if k.Kind != yaml.ScalarNode {
			d.addf(k, codeType, "a key is a word")
			continue
		}
		// No known key is a trap, but names that the author chose can be. A
		// single letter is one in YAML 1.1's text only: no reader is known
		// to take n for false.
		if trap := plainTrap(k); trap != "" && len(k.Value) > 1 {
			d.addf(k, codeType, "other YAML readers take the key %s for %s; put it in quotes", k.Value, trap)
		}
		if seen[k.Value] {
			d.addf(k, codeDuplicate, "key %q stands here twice", k.Value)
			continue
		}
		seen[k.Value] = true
		visit(k, v)
	}
	return seen
}

// text reads a string. A scalar that YAML takes for something else (no, on,
// 1.10, 0x1f, null) must be quoted: it would not be what stands there.
func (d *decoder) text(n *yaml.Node, what string) string {
	if !d.is(n, yaml.ScalarNode, "%s is a text", what) {
		return ""
	}
	switch {
	case n.Tag == "!!null" && n.Value == "":
		d.addf(n, codeType, "%s is empty%s", what, d.commented(n))
		return ""
	case n.Tag != "!!str":
		d.addf(n, codeType, "%s: YAML reads %s as %s; put it in quotes", what, n.Value, strings.TrimPrefix(n.Tag, "!!"))
		return ""
	}
	if trap := plainTrap(n); trap != "" {
		d.addf(n, codeType, "%s: other YAML readers take %s for %s; put it in quotes", what, n.Value, trap)
	}
	return n.Value
}

// commented is what to do about a text that is none because it begins with #.
func (d *decoder) commented(n *yaml.Node) string {
	if n.Line < 1 || n.Line > len(d.lines) {
		return ""
	}
	if _, rest, ok := strings.Cut(d.lines[n.Line-1], ":"); ok && strings.HasPrefix(strings.TrimSpace(rest), "#") {
		return "; a text that begins with # needs quotes"
	}
	return ""
}

// filled reads a string that has to say something.
func (d *decoder) filled(n *yaml.Node, what string) string {
	before := len(d.problems)
	s := d.text(n, what)
	if !blank(s) || d.refused[n] || len(d.problems) > before {
		return s
	}
	d.addf(n, codeValue, "%s is empty", what)
	return ""
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }

// sexagesimal is a number of base 60 in YAML 1.1: 12:30 is 750 there.
var sexagesimal = regexp.MustCompile(`^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)

// plainTrap recognises unquoted words that are no text in YAML 1.1, and says
// what they are.
func plainTrap(n *yaml.Node) string {
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return ""
	}
	switch strings.ToLower(n.Value) {
	case "yes", "no", "on", "off", "y", "n":
		return "a truth value"
	}
	if strings.ContainsRune(n.Value, ':') && sexagesimal.MatchString(n.Value) {
		return "a number of base 60"
	}
	return ""
}

// leadingZero finds numbers that are octal to some YAML readers.
var leadingZero = regexp.MustCompile(`^[-+]?0[0-9]`)

// number reads a number; false when it is none.
func (d *decoder) number(n *yaml.Node, what string) (float64, bool) {
	if !d.is(n, yaml.ScalarNode, "%s is a number", what) {
		return 0, false
	}
	v, err := strconv.ParseFloat(n.Value, 64)
	if n.Tag != "!!int" && n.Tag != "!!float" || err != nil || v != v || leadingZero.MatchString(n.Value) {
		d.addf(n, codeType, "%s is a number%s", what, asNumber(n))
		return 0, false
	}
	return v, true
}

// asNumber says how to write what was meant to be a number.
func asNumber(n *yaml.Node) string {
	text := strings.TrimSpace(n.Value)
	if v, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(text, "%")), 64); err == nil && strings.HasSuffix(text, "%") {
		return fmt.Sprintf("; for %s write %g", text, v/100)
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil && n.Tag == "!!str" {
		return "; write it without quotes"
	}
	return ""
}

// integer reads a whole number; false when it is none.
func (d *decoder) integer(n *yaml.Node, what string) (int, bool) {
	if !d.is(n, yaml.ScalarNode, "%s is a whole number", what) {
		return 0, false
	}
	v, err := strconv.Atoi(n.Value)
	if n.Tag != "!!int" || err != nil || leadingZero.MatchString(n.Value) {
		d.addf(n, codeType, "%s is a whole number%s", what, asNumber(n))
		return 0, false
	}
	return v, true
}

// oneOf reads one of a few words.
func (d *decoder) oneOf(n *yaml.Node, what string, words ...string) string {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && plainTrap(n) != "" && !d.refused[n] {
		// Quotes would not make it one of the words.
		d.addf(n, codeValue, "%s is one of %s, not %q", what, strings.Join(words, ", "), n.Value)
		return ""
	}
	s := d.filled(n, what)
	for _, w := range words {
		if s == w {
			return s
		}
	}
	if s != "" {
		d.addf(n, codeValue, "%s is one of %s, not %q%s", what, strings.Join(words, ", "), s, didYouMean(s, words))
	}
	return ""
}

func (d *decoder) list(n *yaml.Node, what string, each func(*yaml.Node)) {
	if !d.is(n, yaml.SequenceNode, "%s is a list", what) {
		return
	}
	for _, c := range n.Content {
		each(c)
	}
}

func (d *decoder) texts(n *yaml.Node, what string) []string {
	var out []string
	d.list(n, what, func(c *yaml.Node) {
		before := len(d.problems)
		s := d.text(c, what)
		if len(d.problems) == before && !d.refused[c] && blank(s) {
			d.addf(c, codeValue, "an entry of %s is empty", what)
		}
		out = append(out, s)
	})
	return out
}
