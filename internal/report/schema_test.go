package report

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/phpwhy/phpwhy/internal/capture"
)

// validator checks a document against the part of JSON Schema that the
// report's schema uses; a keyword beyond it is an error, not ignored.
type validator struct{ root map[string]any }

func (v validator) check(path string, s map[string]any, doc any) error {
	for key, arg := range s {
		if err := v.keyword(path, key, arg, s, doc); err != nil {
			return err
		}
	}
	return nil
}

func (v validator) keyword(path, key string, arg any, s map[string]any, doc any) error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%s: %s", path, fmt.Sprintf(format, a...))
	}
	object, _ := doc.(map[string]any)
	switch key {
	case "$schema", "$id", "$defs", "title", "description":
	case "$ref":
		name := strings.TrimPrefix(arg.(string), "#/$defs/")
		def, ok := v.root["$defs"].(map[string]any)[name].(map[string]any)
		if !ok {
			return bad("the schema has no %s", arg)
		}
		return v.check(path, def, doc)
	case "const":
		if doc != arg {
			return bad("%v, want %v", doc, arg)
		}
	case "enum":
		if !slices.Contains(arg.([]any), doc) {
			return bad("%v, want one of %v", doc, arg)
		}
	case "type":
		if !hasType(doc, arg.(string)) {
			return bad("%T, want %s", doc, arg)
		}
	case "minimum", "maximum":
		n, ok := doc.(float64)
		if ok && (key == "minimum" && n < arg.(float64) || key == "maximum" && n > arg.(float64)) {
			return bad("%v, %s %v", n, key, arg)
		}
	case "pattern":
		if str, ok := doc.(string); ok && !regexp.MustCompile(arg.(string)).MatchString(str) {
			return bad("%q does not match %s", str, arg)
		}
	case "properties":
		for name, sub := range arg.(map[string]any) {
			if val, ok := object[name]; ok {
				if err := v.check(path+"."+name, sub.(map[string]any), val); err != nil {
					return err
				}
			}
		}
	case "required":
		for _, name := range arg.([]any) {
			if _, ok := object[name.(string)]; !ok {
				return bad("%s is missing", name)
			}
		}
	case "additionalProperties":
		for name := range object {
			if _, ok := s["properties"].(map[string]any)[name]; !ok {
				return bad("%s is not in the schema", name)
			}
		}
	case "items":
		list, _ := doc.([]any)
		for i, e := range list {
			if err := v.check(fmt.Sprintf("%s[%d]", path, i), arg.(map[string]any), e); err != nil {
				return err
			}
		}
	case "oneOf":
		var errs []string
		for _, sub := range arg.([]any) {
			if err := v.check(path, sub.(map[string]any), doc); err != nil {
				errs = append(errs, err.Error())
			}
		}
		if n := len(arg.([]any)) - len(errs); n != 1 {
			return bad("%d alternatives fit, want 1: %s", n, strings.Join(errs, "; "))
		}
	default:
		return bad("this test does not know the keyword %s", key)
	}
	return nil
}

func hasType(doc any, want string) bool {
	switch d := doc.(type) {
	case nil:
		return want == "null"
	case string:
		return want == "string"
	case bool:
		return want == "boolean"
	case []any:
		return want == "array"
	case map[string]any:
		return want == "object"
	case float64:
		return want == "number" || want == "integer" && d == float64(int64(d))
	}
	return false
}

func schemaValidator(t *testing.T) validator {
	t.Helper()
	var v validator
	if err := json.Unmarshal(JSONSchema(), &v.root); err != nil {
		t.Fatal(err)
	}
	return v
}

func document(t *testing.T, r *Report) any {
	t.Helper()
	var doc any
	if err := json.Unmarshal(jsonOf(t, r), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestEveryReportFitsTheSchema(t *testing.T) {
	v := schemaValidator(t)
	reports := map[string]*Report{"zero": Build(&capture.Capture{}, Verdict{Findings: []Finding{{Kind: Cause}}, Undetermined: []Undetermined{{}}})}
	for _, s := range scenes() {
		reports[s.name] = Build(s.capture, s.verdict)
	}
	for name, r := range reports {
		t.Run(name, func(t *testing.T) {
			if err := v.check("report", v.root, document(t, r)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTheSchemaRefusesOtherReports makes sure that the check above can fail.
func TestTheSchemaRefusesOtherReports(t *testing.T) {
	v := schemaValidator(t)
	for _, tt := range []struct {
		name string
		edit func(map[string]any)
		want string
	}{
		{"a field is missing", func(d map[string]any) { delete(d, "findings") }, "findings is missing"},
		{"a field is new", func(d map[string]any) { d["x"] = 1 }, "x is not in the schema"},
		{"an array is null", func(d map[string]any) { d["stacks"] = nil }, "report.stacks: <nil>, want array"},
		{"a number is text", func(d map[string]any) { d["target"].(map[string]any)["pid"] = "1" }, "report.target.pid: string, want integer"},
		{"another version", func(d map[string]any) { d["schema"] = "phpwhy/report/v2" }, "want phpwhy/report/v1"},
		{"a frame of both kinds", func(d map[string]any) {
			f := d["stacks"].([]any)[0].(map[string]any)["frames"].([]any)[0].(map[string]any)
			f["opcode"] = ""
		}, "0 alternatives fit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			doc := document(t, Build(base(stripped(), 2, 0), Verdict{Findings: []Finding{concat()}}))
			tt.edit(doc.(map[string]any))
			if err := v.check("report", v.root, doc); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestNoArrayIsEverNull walks the smallest report for nil slices.
func TestNoArrayIsEverNull(t *testing.T) {
	r := Build(&capture.Capture{}, Verdict{Findings: []Finding{{}}, Undetermined: []Undetermined{{}}})
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Slice:
			if v.IsNil() {
				t.Errorf("%s is nil", path)
			}
			for i := range v.Len() {
				walk(fmt.Sprintf("%s[%d]", path, i), v.Index(i))
			}
		case reflect.Struct:
			for i := range v.NumField() {
				walk(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
		}
	}
	walk("report", reflect.ValueOf(*r))
}
