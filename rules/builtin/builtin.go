// Package builtin holds the rules that come with phpwhy, with their tests.
package builtin

import "embed"

// FS holds the rule files; *.test.yaml are their tests, captures/ what they
// were recorded from.
//
//go:embed *.yaml
var FS embed.FS
