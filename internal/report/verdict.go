package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/phpwhy/phpwhy/rules"
)

// FromRules turns what the rules said into a verdict. When nothing was reported,
// the matches that were held back (too unsure, excepted) are noted, as the best
// lead there is, and the rules that are for other targets.
func FromRules(rep rules.Report) Verdict {
	var v Verdict
	for i := range rep.Findings {
		v.Findings = append(v.Findings, fromFinding(&rep.Findings[i]))
	}
	var skipped []string
	results := slices.Clone(rep.Results)
	// Of those that could not be decided the likeliest come first.
	slices.SortStableFunc(results, func(a, b rules.Result) int {
		if a.Fits != b.Fits {
			if a.Fits {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.Specific, a.Specific), cmp.Compare(b.Near, a.Near))
	})
	for i := range results {
		r := &results[i]
		switch {
		case r.Skipped != "":
			skipped = append(skipped, r.Rule.ID)
		case r.Verdict == rules.Undetermined:
			u := Undetermined{Rule: r.Rule.ID, Missing: r.Missing}
			if r.Fits {
				u.Fits = r.Rule.Title
			}
			v.Undetermined = append(v.Undetermined, u)
		case r.Hidden != "" && len(rep.Findings) == 0:
			v.Notes = append(v.Notes, fmt.Sprintf("%s matches but is not reported: %s", r.Rule.ID, r.Hidden))
		}
		for _, e := range r.Errors {
			v.Notes = append(v.Notes, fmt.Sprintf("%s: %s", r.Rule.ID, e))
		}
	}
	if n := len(skipped); n > 0 && len(rep.Findings) == 0 {
		note := fmt.Sprintf("%s for other targets not tried: %s", count(n, "rule"), strings.Join(skipped[:min(n, listed)], ", "))
		if n > listed {
			note += fmt.Sprintf(" and %s more", number(n-listed))
		}
		v.Notes = append(v.Notes, note)
	}
	return v
}

func fromFinding(f *rules.Finding) Finding {
	out := Finding{Rule: f.Rule, Severity: string(f.Severity), Confidence: f.Confidence, Kind: string(f.Kind),
		Title: f.Title, Message: f.Message, Fix: f.Fix, Matched: f.Matched, Of: f.Of}
	if s := f.Site; s != nil {
		out.PHP = Site{Function: s.Function, Class: s.Class, File: s.File, Line: s.Line}
	}
	for _, e := range f.Evidence {
		out.Evidence = append(out.Evidence, Evidence{What: e.What, N: e.N, FromBytes: e.FromBytes, ToBytes: e.ToBytes})
	}
	return out
}
