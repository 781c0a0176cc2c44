// Package rules names root causes: it loads rules from YAML, matches them
// against what was observed of a process, and reports findings.
//
// Contract: every rule is evaluated, never only the first that matches. A rule
// that needs evidence which was not collected is undetermined and says what
// is missing; that is not the same as "no match". Loading reports every
// problem of every file with its position, and a rule with a problem never
// takes another one down. Matching takes time linear in frames times pattern
// length, whatever the input.
//
// Non-goal: the package neither observes processes nor reads capture files;
// callers turn what they have into an Observation.
package rules
