package report

import (
	"testing"

	"github.com/phpwhy/phpwhy/internal/triage"
)

func TestAgesOfRequests(t *testing.T) {
	for _, c := range []struct {
		ages *triage.Ages
		want string
	}{
		{nil, ""},
		{&triage.Ages{}, ""},
		{&triage.Ages{Min: 3301, Median: 3304, Max: 3309}, "3.3 s"},
		{&triage.Ages{Min: 1000, Median: 2000, Max: 61_000}, "1.0 s to 61.0 s, half of them for 2.0 s or more"},
	} {
		if got := Ages(c.ages); got != c.want {
			t.Errorf("%+v: %q, want %q", c.ages, got, c.want)
		}
	}
}
