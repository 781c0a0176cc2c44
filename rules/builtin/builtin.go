// Package builtin holds the rules that come with phpwhy, with their tests.
package builtin

import "embed"

// FS holds the rule files; *.test.yaml are their tests, captures/ what they
// were recorded from. symbols.txt has the C functions that they name and that
// are in no PHP that rules/symbols.txt.gz is made from.
//
//go:embed *.yaml symbols.txt
var FS embed.FS

// Prepared is what rules.Prepare made of FS, so that it loads quickly; make
// generate makes it.
//
//go:embed prepared.bin
var Prepared []byte
