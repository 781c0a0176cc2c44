package rules

import (
	"fmt"
	"strings"
	"time"
)

// Schema is the value of a rule file's key "schema".
const Schema = "phpwhy/rule/v1"

// Severity is how bad it is.
type Severity string

// The severities, mildest first.
const (
	Info     Severity = "info"
	Low      Severity = "low"
	Medium   Severity = "medium"
	High     Severity = "high"
	Critical Severity = "critical"
)

var severities = []string{string(Info), string(Low), string(Medium), string(High), string(Critical)}

// Severities lists them, mildest first.
func Severities() []Severity { return []Severity{Info, Low, Medium, High, Critical} }

// Kind tells causes of a hang from healthy states.
type Kind string

// The kinds of rules.
const (
	Cause  Kind = "cause"
	Benign Kind = "benign"
)

// Rule is one compiled rule.
type Rule struct {
	ID         string
	Revision   int
	Title      string
	Severity   Severity
	Maturity   string
	Kind       Kind
	Supersedes []string
	// Overrides is the rule of the same id that this one replaces; nil for none.
	Overrides *Version
	// Labels are the author's own, for sorting rules: a team, a service.
	Labels  map[string]string
	Explain string
	Fix     string
	Refs    []string
	File    string // with its source's name before it
	Line    int
	Source  string // name of the Source that it is from

	applies    applies
	match      node
	bind       map[string]*expr
	score      score
	message    *template
	exceptions []exception
	text       string
	at         map[string]mark // where the file's keys stand
	source     int             // index of the Source
	replaces   *Rule           // the rule that Overrides names
	alts       []*alternative  // all of them, in the order of the file
	// Of a rule that did not load: the keys that have problems, and whether the id is
	// the file's name.
	bad     map[string]bool
	guessed bool
}

// mark is a place in a rule's file.
type mark struct{ line, col int }

// Version is one revision of one rule.
type Version struct {
	ID       string
	Revision int
}

func (v Version) String() string { return fmt.Sprintf("%s@%d", v.ID, v.Revision) }

// Text is the rule's file as it was read.
func (r *Rule) Text() string { return r.text }

// Message is the message as it is written, with {{name}} for what it shows.
func (r *Rule) Message() string { return r.message.source }

// Replaces is the rule that this one overrides, nil for none.
func (r *Rule) Replaces() *Rule { return r.replaces }

type score struct {
	base       float64
	plus       []bonus
	perUnknown float64
	reportAt   float64
}

type bonus struct {
	add float64
	if_ *expr
}

type exception struct {
	site, reason string
	until        time.Time // the first moment at which it no longer holds
	mark
}

// Section is the part of the rule's file about one key, as it is written; ""
// when the file does not have the key.
func (r *Rule) Section(key string) string {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(r.text) {
		if len(line) > 0 && !strings.ContainsAny(line[:1], " #-\n\r") {
			inside = strings.HasPrefix(line, key+":")
		}
		if inside {
			b.WriteString(line)
		}
	}
	return b.String()
}
