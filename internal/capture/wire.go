package capture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/internal/stack"
)

// line is any line of a file; which fields are present says which one it is.
type line struct {
	Schema *string         `json:"schema,omitempty"` // with Target: the header
	Target *Target         `json:"target,omitempty"`
	Stack  *stackLine      `json:"stack,omitempty"`
	Event  *eventLine      `json:"event,omitempty"`
	Facts  *map[string]any `json:"facts,omitempty"`
	End    *endLine        `json:"end,omitempty"`
}

type stackLine struct {
	ID int `json:"id"`
	stack.Stack
}

// eventLine carries arguments as strings: they are 64-bit words, and a JSON
// number keeps 53 bits in most readers.
type eventLine struct {
	US     int64     `json:"t_us"`
	Kind   EventKind `json:"kind"`
	TID    int       `json:"tid"`
	Symbol string    `json:"symbol,omitempty"`
	Args   []string  `json:"args,omitempty"`
	Stack  int       `json:"stack"`
}

type endLine struct {
	Observation Observation `json:"observation"`
	Variables   []Variable  `json:"variables,omitempty"`
}

// decodeLine decodes one line strictly: a name that this version does not know
// may carry evidence that it would miss.
func decodeLine(b []byte) (*line, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	d.UseNumber()
	var l line
	if err := d.Decode(&l); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the line is empty")
		}
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the JSON object")
	}
	return &l, nil
}

// kind names what the line is.
func (l *line) kind() (string, error) {
	var kinds []string
	for _, k := range []struct {
		name    string
		present bool
	}{
		{"header", l.Schema != nil}, {"stack", l.Stack != nil}, {"event", l.Event != nil},
		{"facts", l.Facts != nil}, {"end", l.End != nil},
	} {
		if k.present {
			kinds = append(kinds, k.name)
		}
	}
	if len(kinds) != 1 || l.Target != nil && l.Schema == nil {
		return "", fmt.Errorf("a line is one of header, stack, event, facts and end; this one has %d of them", len(kinds))
	}
	return kinds[0], nil
}

func encodeEvent(e *Event) *eventLine {
	l := &eventLine{US: e.At.Microseconds(), Kind: e.Kind, TID: e.TID, Symbol: text(e.Symbol), Stack: e.Stack}
	for _, a := range e.Args {
		l.Args = append(l.Args, "0x"+strconv.FormatUint(a, 16))
	}
	return l
}

func (l *eventLine) event() (Event, error) {
	if l.US > math.MaxInt64/int64(time.Microsecond) {
		return Event{}, fmt.Errorf("event at %d µs: out of range", l.US)
	}
	e := Event{At: time.Duration(l.US) * time.Microsecond, Kind: l.Kind, TID: l.TID, Symbol: l.Symbol, Stack: l.Stack}
	if l.US < 0 {
		e.At = -1 // refused by checkEvent; the product could wrap
	}
	for _, s := range l.Args {
		hex, ok := strings.CutPrefix(s, "0x")
		base := 16
		if !ok {
			base = 10
		}
		v, err := strconv.ParseUint(hex, base, 64)
		if err != nil {
			return Event{}, fmt.Errorf("event's argument: %w", err)
		}
		e.Args = append(e.Args, v)
	}
	return e, nil
}

// float is a float64 that stays one in JSON: 50 would be read as an integer,
// and rules compare typed values.
type float float64

func (f float) MarshalJSON() ([]byte, error) {
	s := strconv.FormatFloat(float64(f), 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return []byte(s), nil
}

// encodeFact prepares a normal fact for encoding/json.
func encodeFact(v any) any {
	switch v := v.(type) {
	case float64:
		return float(v)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = encodeFact(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = encodeFact(e)
		}
		return out
	}
	return v
}

// decodeFact turns what the decoder gave into a normal fact's types.
func decodeFact(v any, depth int) (any, error) {
	if depth < 0 {
		return nil, errDepth
	}
	var err error
	switch v := v.(type) {
	case json.Number:
		return decodeNumber(string(v))
	case []any:
		for i := range v {
			if v[i], err = decodeFact(v[i], depth-1); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = decodeFact(v[k], depth-1); err != nil {
				return nil, err
			}
		}
	case nil:
		return nil, errors.New("null is no evidence; leave the fact out")
	}
	return v, nil
}

func decodeNumber(s string) (any, error) {
	if strings.ContainsAny(s, ".eE") {
		return strconv.ParseFloat(s, 64)
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, nil
	}
	return strconv.ParseUint(s, 10, 64)
}
