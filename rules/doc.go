// Package rules names root causes: it loads rules from YAML, matches them
// against what was observed of a process, and reports findings.
//
// Contract: every rule is evaluated, never only the first that matches. A rule
// that needs evidence which was not collected is undetermined and says what
// is missing; that is not the same as "no match". Loading reports every
// problem of every file with its position, and a rule with a problem never
// takes another one down. Matching takes time linear in frames times pattern
// length, whatever the input. Evaluation is pure: no I/O, no clock but
// Options.Now, so a Set may be used by several goroutines. (Bench reads the clock.)
//
// Hazard: stacks, names and arguments come from the observed process, which may
// be hostile, and messages repeat them. Nothing here escapes text for a terminal.
//
// Non-goal: the package neither observes processes nor reads capture files;
// callers turn what they have into an Observation.
//
// # Patterns
//
// A pattern has one frame per line, leaf first:
//
//	[leaf|root] [opt|M-N|M-*] NAME|ALT|glob* [unk] [mod=GLOB] [file=GLOB] [line=A-B] [inl=any|only|never] [as=VAR]
//	[leaf|root] any mod=GLOB
//	gap M-N
//
// A pattern under stack: sees the native frames as if no PHP frames lay between
// them, one under php: sees only the PHP frames. Adjacent lines are adjacent
// frames. Unless its first line says leaf it may begin at any frame, and
// unless its last says root it may end at any. With unk, one frame without a
// name stands in for the line's, unless it is in libc. In a PHP pattern a line
// is
//
//	[leaf|root] [opt|M-N|M-*] [internal|user] [function|class::method|glob*] [file=GLOB] [line=A-B] [as=VAR]
//
// in which user and internal tell whether the function is written in PHP or C.
// Of several places where a pattern matches, the one nearest to the leaf
// counts, and of several ways there the one with the fewest unknown frames. On
// a stack that was not read to its root a pattern is undetermined that wants
// the root, or that is in the middle of a match where the stack breaks off.
//
// # Speed
//
// Evaluate turns the names of all frames into numbers once (corpus), proposes
// to each distinct stack the patterns whose rarest required name it has
// (search), and runs those with all their states in one word. What a match
// took (captures, unknown frames) is found out for matches alone. Set.Bench
// measures it against trying everything.
package rules
