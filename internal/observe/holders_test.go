package observe

import (
	"testing"

	"github.com/phpwhy/phpwhy/internal/proc"
)

func TestOnlyTheBeginningOfASessionIDIsShown(t *testing.T) {
	for in, want := range map[string]string{
		"/var/lib/php/sessions/sess_0123456789abcdef": "/var/lib/php/sessions/sess_012345…",
		"/srv/app/session.lock":                       "/srv/app/session.lock",
		"sess_":                                       "sess_",
	} {
		if got := shortPath(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestCommandLinesWithSecretsAreCut(t *testing.T) {
	for in, want := range map[string]string{
		"mysqldump -u root -phunter2 shop":            "mysqldump [redacted]",
		"mysqldump --password=hunter2 shop":           "mysqldump [redacted]",
		"curl https://user:hunter2@example.com/":      "curl [redacted]",
		"php-fpm: pool www":                           "php-fpm: pool www",
		"convert -resize 50% in.png out.png":          "convert -resize 50% in.png out.png",
		"php-fpm: master process (/etc/php-fpm.conf)": "php-fpm: master process (/etc/php-fpm.conf)",
	} {
		if got := discreet(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestHoldersAreNamedAndCounted(t *testing.T) {
	a := proc.Holder{PID: 812, Cmdline: "php-fpm: pool www"}
	for want, hs := range map[string][]proc.Holder{
		"a process that can't be seen from here":                              nil,
		"pid 812 (php-fpm: pool www)":                                         {a},
		"pid 812 (php-fpm: pool www), pid 7 (it has ended), pid 8 and 2 more": {a, {PID: 7, Ended: true}, {PID: 8}, {PID: 9}, {PID: 10}},
	} {
		if got := names(hs); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
