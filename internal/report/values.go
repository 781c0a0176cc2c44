package report

import (
	"fmt"
	"strings"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

// maxValues is how many values of one frame the text shows; the JSON has them all.
const maxValues = 24

const valueIndent = "          "

// values writes a frame's variables, one to a line, and those that are not set
// yet in one line together: in a long function they are many.
func (t *textWriter) values(vs []stack.Value) {
	var unset []string
	written, left := 0, 0
	for i := range vs {
		v := &vs[i]
		switch {
		case v.Type == "undef":
			unset = append(unset, v.Name)
		case v.Type == "": // a word on values that are not there
			t.line(dim, valueIndent+v.Name+" "+v.Value)
		case written == maxValues:
			left++
		default:
			written++
			t.put(plain, valueIndent)
			t.put(bold, v.Name)
			t.put(plain, " = "+v.Value)
			if v.Redacted {
				t.put(dim, " ("+v.Type+")")
			}
			t.end()
		}
	}
	if left > 0 {
		t.line(dim, fmt.Sprintf("%s… %s more; --format json has them all", valueIndent, number(left)))
	}
	if n := len(unset); n > maxValues {
		unset = append(unset[:maxValues:maxValues], "… "+number(n-maxValues)+" more")
	}
	if len(unset) > 0 {
		t.line(dim, valueIndent+"not set: "+strings.Join(unset, ", "))
	}
}

// variables says what became of the variables that were watched.
func (t *textWriter) variables() {
	if len(t.r.Variables) == 0 {
		return
	}
	t.end()
	for i := range t.r.Variables {
		t.variable(&t.r.Variables[i])
	}
}

func (t *textWriter) variable(v *capture.Variable) {
	t.put(bold, "$"+v.Var)
	t.put(plain, " at "+v.At+": ")
	if v.Seen == 0 {
		t.line(yellow, "not seen")
		return
	}
	t.put(plain, v.First)
	if v.Last != v.First {
		t.put(plain, " → "+v.Last)
	}
	var parts []string
	if v.Trend != "" {
		parts = append(parts, v.Trend)
	}
	if v.Distinct > 1 {
		parts = append(parts, count(v.Distinct, "distinct value"))
	}
	parts = append(parts, "seen "+times(v.Seen))
	t.line(dim, "; "+strings.Join(parts, ", "))
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return count(n, "time")
}
