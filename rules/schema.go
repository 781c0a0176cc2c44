package rules

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// The types below are rule and test files as JSON Schema describes them, for
// editors; the loader reads the YAML itself, and says more. A test holds their
// keys against the loader's. A field's tags are its key (json), what it is
// (doc), and what it must be: there at all (need), of some words (enum), between
// bounds (min, max, above), of some form (pattern, and keys for a mapping's keys), or
// not without entries (some); blank allows a text that says nothing.

type ruleFile struct {
	Schema     string            `json:"schema" need:"y" enum:"phpwhy/rule/v1" doc:"The version of the rule language."`
	ID         string            `json:"id" need:"y" pattern:"^[a-z][a-z0-9-]*(\\.[a-z0-9][a-z0-9-]*)+$" doc:"Names the cause; unique: mem.string-concat."`
	Revision   int               `json:"revision" min:"1" doc:"Counts the changes of what the rule says. Default 1."`
	Overrides  string            `json:"overrides" pattern:"^[a-z][a-z0-9.-]*@[1-9][0-9]*$" doc:"The revision of the rule of the same id that this one replaces: mem.string-concat@3."`
	Title      string            `json:"title" need:"y" doc:"The cause in a few words, as the end of a sentence."`
	Severity   string            `json:"severity" need:"y" enum:"info|low|medium|high|critical" doc:"How bad it is."`
	Maturity   string            `json:"maturity" enum:"experimental|stable|deprecated" doc:"How settled the rule is; of an experimental one no near miss is asked for yet. Default stable."`
	Kind       string            `json:"kind" enum:"cause|benign" doc:"A cause of a hang, or a healthy state, which hides causes. Default cause."`
	Labels     map[string]string `json:"labels" keys:"^[A-Za-z_][A-Za-z_0-9]*$" blank:"y" doc:"The author's own, to sort rules by: a team, a service."`
	AppliesTo  appliesFile       `json:"applies_to" doc:"The targets that the rule is for; what is not known of a target excludes nothing."`
	Supersedes []string          `json:"supersedes" doc:"Ids of rules whose findings this one hides when both match."`
	Match      conditionFile     `json:"match" need:"y" doc:"The condition."`
	Bind       map[string]string `json:"bind" keys:"^[A-Za-z_][A-Za-z_0-9]*$" doc:"Names for message, each an expression (CEL) over the evidence."`
	Score      scoreFile         `json:"score" doc:"How sure the rule is, from 0 to 1."`
	Message    string            `json:"message" need:"y" doc:"What is shown; {{name}} is a capture or a binding, {{name|bytes}} a size, {{name|int}} a whole number, {{name|secs}} a time in seconds."`
	Explain    string            `json:"explain" blank:"y" doc:"How it comes to this."`
	Fix        string            `json:"fix" blank:"y" doc:"What to do about it."`
	Refs       []string          `json:"refs" doc:"Where to read more."`
	Exceptions []exceptionFile   `json:"exceptions" doc:"Places where the finding is known and not shown."`
}

type appliesFile struct {
	PHP  string   `json:"php" pattern:"^\\s*(>=|<=|==|>|<|=)[0-9]+(\\.[0-9]+)*(\\s+(>=|<=|==|>|<|=)[0-9]+(\\.[0-9]+)*)*\\s*$" doc:"A range of versions: \">=5.6 <9\"."`
	SAPI []string `json:"sapi" doc:"As php_sapi_name() says: fpm-fcgi, cli, apache2handler."`
	Libc []string `json:"libc" enum:"glibc|musl" doc:"The C library."`
}

// conditionFile is one of all, any, not, expr, or stack and php.
type conditionFile struct {
	All   []conditionFile `json:"all" some:"y" doc:"Conditions of which all must hold."`
	Any   []conditionFile `json:"any" some:"y" doc:"Conditions of which one must hold."`
	Not   *conditionFile  `json:"not" doc:"A condition that must not hold."`
	Expr  string          `json:"expr" doc:"An expression (CEL) over the evidence, such as chain.steps >= 8."`
	In    string          `json:"in" enum:"stops|samples|any" doc:"The events that stack and php look at. Default any."`
	Share float64         `json:"share" above:"0" max:"1" doc:"The share of them that must match, as 0.8 for 80 %; without it one is enough."`
	Stack patternsFile    `json:"stack" doc:"Frame lines for the native frames, or several patterns with names."`
	PHP   patternsFile    `json:"php" doc:"Frame lines for PHP's frames, or several patterns with names."`
}

// patternsFile is a pattern, or several with names.
type patternsFile struct{}

type scoreFile struct {
	Base       float64    `json:"base" need:"y" min:"0" max:"1" doc:"The score of a match."`
	Plus       []plusFile `json:"plus" doc:"What adds to it."`
	PerUnknown float64    `json:"per_unknown" min:"-1" max:"0" doc:"What each unknown frame costs that stood in for a name."`
	ReportAt   float64    `json:"report_at" min:"0" max:"1" doc:"The score from which on the finding is shown. Default 0.5."`
}

type plusFile struct {
	Add float64 `json:"add" need:"y" min:"-1" max:"1" doc:"What is added."`
	If  string  `json:"if" need:"y" doc:"An expression (CEL); missing evidence adds nothing."`
}

type exceptionFile struct {
	Site   string `json:"site" need:"y" doc:"The place, a file or file:line; * and ? stand for any characters."`
	Until  string `json:"until" need:"y" pattern:"^[0-9]{4}-[0-9]{2}-[0-9]{2}$" doc:"The last day of the exception."`
	Reason string `json:"reason" need:"y" doc:"Why it is known."`
}

type testFile struct {
	Rule  string     `json:"rule" need:"y" doc:"The id of the rule under test."`
	Cases []caseFile `json:"cases" need:"y" doc:"At least one that matches, and one near miss that does not."`
}

type caseFile struct {
	Capture  string            `json:"capture" need:"y" doc:"A capture or a pasted backtrace; the path begins at this file's folder, unless it is absolute."`
	Expect   string            `json:"expect" need:"y" enum:"match|no_match|undetermined" doc:"What the rule must say."`
	Captures map[string]string `json:"captures" doc:"What as= captured: file:line; * and ? stand for any characters."`
	Score    string            `json:"score" pattern:"^[<>]=-?[0-9]*\\.?[0-9]+$" doc:"A bound of the score: \">=0.8\"."`
}

// RuleSchema is the JSON Schema (draft-07) of rule files.
func RuleSchema() []byte {
	return schemaOf(reflect.TypeFor[ruleFile](), "A rule of phpwhy")
}

// TestSchema is the JSON Schema (draft-07) of *.test.yaml files.
func TestSchema() []byte {
	return schemaOf(reflect.TypeFor[testFile](), "The tests of a rule of phpwhy")
}

type schema map[string]any

// schemaOf describes a type; conditions stand apart, because they nest.
func schemaOf(t reflect.Type, title string) []byte {
	s := object(t)
	s["$schema"], s["title"] = "http://json-schema.org/draft-07/schema#", title
	if t == reflect.TypeFor[ruleFile]() {
		s["definitions"] = schema{"condition": conditionSchema(), "patterns": patternsSchema()}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		return nil // maps of texts and numbers always encode
	}
	return b.Bytes()
}

func object(t reflect.Type) schema {
	properties, required := schema{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		properties[f.Tag.Get("json")] = field(f)
		if f.Tag.Get("need") != "" {
			required = append(required, f.Tag.Get("json"))
		}
	}
	s := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

func field(f reflect.StructField) schema {
	s := typed(f.Type, f.Tag)
	if _, ref := s["$ref"]; ref {
		// Draft-07 ignores what stands beside a reference.
		s = schema{"allOf": []schema{s}}
	}
	s["description"] = f.Tag.Get("doc")
	return s
}

func typed(t reflect.Type, tag reflect.StructTag) schema {
	switch {
	case t == reflect.TypeFor[conditionFile](), t == reflect.TypeFor[*conditionFile]():
		return schema{"$ref": "#/definitions/condition"}
	case t == reflect.TypeFor[patternsFile]():
		return schema{"$ref": "#/definitions/patterns"}
	}
	switch t.Kind() {
	case reflect.Struct:
		return object(t)
	case reflect.Slice:
		s := schema{"type": "array", "items": typed(t.Elem(), tag)}
		if tag.Get("some") != "" {
			s["minItems"] = 1
		}
		return s
	case reflect.Map:
		s := schema{"type": "object", "additionalProperties": textSchema(tag.Get("blank") != "")}
		if k := tag.Get("keys"); k != "" {
			s["propertyNames"] = schema{"pattern": k}
		}
		return s
	case reflect.Int:
		return bounded(schema{"type": "integer"}, tag)
	case reflect.Float64:
		return bounded(schema{"type": "number"}, tag)
	}
	if e := tag.Get("enum"); e != "" {
		return schema{"type": "string", "enum": strings.Split(e, "|")}
	}
	if p := tag.Get("pattern"); p != "" {
		return schema{"type": "string", "pattern": p}
	}
	return textSchema(tag.Get("blank") != "")
}

// textSchema is a text, which says something unless it may be blank.
func textSchema(blank bool) schema {
	if blank {
		return schema{"type": "string"}
	}
	return schema{"type": "string", "pattern": `\S`}
}

func bounded(s schema, tag reflect.StructTag) schema {
	for key, keyword := range map[string]string{"min": "minimum", "max": "maximum", "above": "exclusiveMinimum"} {
		if v, err := strconv.ParseFloat(tag.Get(key), 64); err == nil {
			s[keyword] = v
		}
	}
	return s
}

// conditionSchema allows the keys that go together. It says so key by key: of a oneOf
// that nothing fits, editors complain about its first form, whichever was meant.
func conditionSchema() schema {
	s := object(reflect.TypeFor[conditionFile]())
	s["minProperties"] = 1
	needs := schema{}
	for _, alone := range []string{"all", "any", "not", "expr"} {
		needs[alone] = schema{"maxProperties": 1}
	}
	for _, with := range []string{"in", "share"} {
		needs[with] = schema{"anyOf": []schema{{"required": []string{"stack"}}, {"required": []string{"php"}}}}
	}
	s["dependencies"] = needs
	return s
}

func patternsSchema() schema {
	return schema{"oneOf": []schema{
		textSchema(false),
		{"type": "object", "minProperties": 1, "propertyNames": schema{"pattern": name.String()}, "additionalProperties": textSchema(false)},
	}}
}
