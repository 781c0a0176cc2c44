package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/phpwhy/phpwhy/internal/compare"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// fields are the JSON names of a struct, and which of them may be absent.
func fields(t reflect.Type) (types map[string]reflect.Type, optional map[string]bool) {
	types, optional = map[string]reflect.Type{}, map[string]bool{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, tagged := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			inner, absent := fields(f.Type)
			maps.Copy(types, inner)
			maps.Copy(optional, absent)
			continue
		}
		if !f.IsExported() || name == "-" {
			continue
		}
		types[name] = f.Type
		optional[name] = tagged && strings.HasPrefix(opts, "omit")
	}
	return types, optional
}

// agree compares a type with the part of a schema that describes it.
func agree(root map[string]any, path string, s map[string]any, t reflect.Type, bad func(string, ...any)) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
		if alternatives, ok := s["oneOf"].([]any); ok {
			s = alternatives[1].(map[string]any)
		}
	}
	if ref, ok := s["$ref"].(string); ok {
		s, ok = root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
		if !ok {
			bad("%s: no %s", path, ref)
			return
		}
	}
	kind := map[reflect.Kind]string{reflect.Struct: "object", reflect.Map: "object", reflect.Slice: "array", reflect.String: "string", reflect.Bool: "boolean", reflect.Float64: "number",
		reflect.Int: "integer", reflect.Int64: "integer", reflect.Uint64: "integer"}[t.Kind()]
	switch {
	case t == reflect.TypeFor[time.Time]():
		kind = "string"
	case t == reflect.TypeFor[stack.Frame](): // its two shapes have a test of their own
		return
	}
	if s["enum"] == nil && s["const"] == nil && s["type"] != kind {
		bad("%s: the schema says %v of a %s", path, s["type"], t)
		return
	}
	switch {
	case kind == "array":
		agree(root, path+"[]", s["items"].(map[string]any), t.Elem(), bad)
	case t.Kind() == reflect.Struct && kind == "object":
		properties, _ := s["properties"].(map[string]any)
		types, optional := fields(t)
		for _, name := range slices.Sorted(maps.Keys(types)) {
			sub, ok := properties[name].(map[string]any)
			if !ok {
				bad("%s: the schema has no %s", path, name)
				continue
			}
			if required := slices.Contains(s["required"].([]any), any(name)); required == optional[name] {
				bad("%s.%s: required is %t", path, name, required)
			}
			agree(root, path+"."+name, sub, types[name], bad)
		}
		for name := range properties {
			if types[name] == nil {
				bad("%s: the schema's %s is in no document", path, name)
			}
		}
		if s["additionalProperties"] != false {
			bad("%s: the schema takes other fields", path)
		}
	}
}

var manySchemas = []struct {
	name   string
	schema func() []byte
	of     reflect.Type
}{
	{"report", JSONSchema, reflect.TypeFor[Report]()},
	{"triage", ManyJSONSchema, reflect.TypeFor[triage.Model]()},
	{"diff", DiffJSONSchema, reflect.TypeFor[compare.Diff]()},
}

func TestSchemasSayWhatTheTypesSay(t *testing.T) {
	for _, tt := range manySchemas {
		t.Run(tt.name, func(t *testing.T) {
			var root map[string]any
			if err := json.Unmarshal(tt.schema(), &root); err != nil {
				t.Fatal(err)
			}
			agree(root, tt.name, root, tt.of, t.Errorf)
		})
	}
}

// TestSchemasThatDisagreeWithTheTypesAreNoticed makes sure that the test above can fail.
func TestSchemasThatDisagreeWithTheTypesAreNoticed(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(root, worker map[string]any)
		want string
	}{
		{"a field too few", func(_, w map[string]any) { delete(w["properties"].(map[string]any), "pid") }, "the schema has no pid"},
		{"a field too many", func(_, w map[string]any) { w["properties"].(map[string]any)["x"] = map[string]any{} }, "x is in no document"},
		{"another type", func(r, _ map[string]any) {
			r["properties"].(map[string]any)["rounds"] = map[string]any{"type": "string"}
		}, "says string of a int"},
		{"not required", func(_, w map[string]any) { w["required"] = []any{} }, ".pid: required is false"},
		{"open", func(_, w map[string]any) { delete(w, "additionalProperties") }, "takes other fields"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var root map[string]any
			if err := json.Unmarshal(ManyJSONSchema(), &root); err != nil {
				t.Fatal(err)
			}
			tt.edit(root, root["$defs"].(map[string]any)["worker"].(map[string]any))
			var said []string
			agree(root, "triage", root, reflect.TypeFor[triage.Model](), func(f string, a ...any) { said = append(said, fmt.Sprintf(f, a...)) })
			if !strings.Contains(strings.Join(said, "\n"), tt.want) {
				t.Errorf("got %q, want %q", said, tt.want)
			}
		})
	}
}

// TestSchemasOfManyAreSchemas: a validator that knows nothing of phpwhy reads
// them, takes frames of either kind, and refuses one of neither.
func TestSchemasOfManyAreSchemas(t *testing.T) {
	for _, tt := range manySchemas {
		t.Run(tt.name, func(t *testing.T) {
			doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(tt.schema())))
			if err != nil {
				t.Fatal(err)
			}
			c := jsonschema.NewCompiler()
			if err := c.AddResource("s.json", doc); err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]bool{"native": true, "php": true, "mixed": false} {
				s, err := c.Compile("s.json#/$defs/stack/properties/frames")
				if err != nil {
					t.Fatal(err)
				}
				b, err := json.Marshal([]stack.Frame{{Kind: stack.Native, Function: "mmap"}, {Kind: stack.PHP, Function: "f", Values: []stack.Value{{Name: "$a", Kind: "variable", Type: "int"}}}})
				if err != nil {
					t.Fatal(err)
				}
				v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
				if err != nil {
					t.Fatal(err)
				}
				frames := v.([]any)
				switch name {
				case "native":
					frames = frames[:1]
				case "php":
					frames = frames[1:]
				case "mixed":
					frames[0].(map[string]any)["opcode"] = ""
				}
				if err := s.Validate(frames); (err == nil) != want {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}
