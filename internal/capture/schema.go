package capture

import (
	_ "embed"
	"slices"
)

//go:embed capture-v2.schema.json
var manySchema []byte

// JSONSchema is the JSON Schema (draft-07) of one line of a capture of many processes.
func JSONSchema() []byte { return slices.Clone(manySchema) }
