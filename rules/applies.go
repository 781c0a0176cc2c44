package rules

import (
	"fmt"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// applies says for which targets a rule is meant.
type applies struct {
	php        []versionTest
	text       string // of php
	sapi, libc []string
}

type versionTest struct {
	op string
	v  []int
}

func (d *decoder) applies(n *yaml.Node) applies {
	var a applies
	d.mapping(n, "applies_to", fields{
		"php": func(n *yaml.Node) {
			var err error
			if text := d.filled(n, "php"); text != "" {
				a.text = text
				if a.php, err = parseVersions(text); err != nil {
					d.addf(n, codeValue, "%v", err)
				}
			}
		},
		"sapi": func(n *yaml.Node) { a.sapi = d.texts(n, "sapi") },
		"libc": func(n *yaml.Node) {
			d.list(n, "libc", func(c *yaml.Node) { a.libc = append(a.libc, d.oneOf(c, "libc", "glibc", "musl")) })
		},
	})
	return a
}

// parseVersions reads a range such as ">=5.6 <9".
func parseVersions(s string) ([]versionTest, error) {
	var out []versionTest
	for _, w := range strings.Fields(s) {
		t := versionTest{}
		for _, op := range []string{">=", "<=", "==", ">", "<", "="} {
			if rest, ok := strings.CutPrefix(w, op); ok {
				t.op, w = strings.TrimSuffix(op, "="), rest
				if op == ">=" || op == "<=" {
					t.op = op
				} else if op == "=" || op == "==" {
					t.op = "="
				}
				break
			}
		}
		v, err := parseVersion(w)
		if t.op == "" || err != nil {
			return nil, fmt.Errorf("version range %q is not of the form >=5.6 <9", s)
		}
		t.v = v
		out = append(out, t)
	}
	if !satisfiable(out) {
		return nil, fmt.Errorf("version range %q can't be met", s)
	}
	return out, nil
}

// satisfiable reports whether some version meets all tests. Only where a test
// changes its mind can the answer change, so the versions around those do.
func satisfiable(ts []versionTest) bool {
	candidates := [][]int{{0, 0, 0}}
	for _, t := range ts {
		v := [3]int{}
		copy(v[:], t.v)
		for i := range v {
			up, down := v, v
			up[i]++
			down[i] = max(0, down[i]-1)
			for j := i + 1; j < len(v); j++ {
				up[j], down[j] = 0, maxVersion
			}
			candidates = append(candidates, up[:], down[:])
		}
		candidates = append(candidates, v[:])
	}
	for _, c := range candidates {
		if meets(c, ts) {
			return true
		}
	}
	return false
}

// maxVersion is more than any part of a version is.
const maxVersion = 1 << 20

// meets reports whether a version meets all tests.
func meets(v []int, ts []versionTest) bool {
	for _, t := range ts {
		c := compareVersions(v, t.v)
		ok := t.op == ">=" && c >= 0 || t.op == "<=" && c <= 0 || t.op == ">" && c > 0 || t.op == "<" && c < 0 || t.op == "=" && c == 0
		if !ok {
			return false
		}
	}
	return true
}

func parseVersion(s string) ([]int, error) {
	var out []int
	for p := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 || n > maxVersion {
			return nil, fmt.Errorf("version %q", s)
		}
		out = append(out, n)
	}
	return out, nil
}

// compareVersions compares as far as both go: 8.2.36 is neither below nor
// above 8.2.
func compareVersions(a, b []int) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return a[i] - b[i]
		}
	}
	return 0
}

// release is a version without what packagers and developers append:
// 8.4.11-dev, 7.4.33+ubuntu1.
func release(version string) string {
	if i := strings.IndexFunc(version, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }); i >= 0 {
		return version[:i]
	}
	return version
}

// AppliesTo says for which targets the rule is meant, "" for all.
func (r *Rule) AppliesTo() string {
	var parts []string
	if r.applies.text != "" {
		parts = append(parts, "PHP "+r.applies.text)
	}
	for _, list := range [][]string{r.applies.sapi, r.applies.libc} {
		if len(list) > 0 {
			parts = append(parts, strings.Join(list, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

// to reports whether the rule is meant for a target, and if not, why. What is
// not known of the target excludes nothing.
func (a *applies) to(t *Target) (bool, string) {
	if v, err := parseVersion(release(t.PHPVersion)); err == nil {
		if !meets(v, a.php) {
			return false, "it is not for PHP " + t.PHPVersion
		}
	}
	if t.SAPI != "" && len(a.sapi) > 0 && !contains(a.sapi, t.SAPI) {
		return false, "it is not for the SAPI " + t.SAPI
	}
	if t.Libc != "" && len(a.libc) > 0 && !contains(a.libc, t.Libc) {
		return false, "it is not for " + t.Libc
	}
	return true, ""
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
