package triage

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/rules"
)

// counted is what the Model says of each worker's pool: "pid same/workers".
func counted(m *Model) (out []string) {
	for i := range m.Workers {
		w := &m.Workers[i]
		out = append(out, fmt.Sprintf("%d %v/%v", w.PID, w.Facts["pool.same_stack"], w.Facts["pool.workers"]))
	}
	return out
}

// at is one look at a worker of a pool, or of a program when there is none.
func (b *Builder) at(h capture.Header, pid int, pool, exe string, round int, c *capture.Capture) {
	c.Target.Exe = exe
	b.Capture(h, pid, uint64(pid), pool, round, time.Duration(round)*time.Second, c)
}

func TestAPoolIsCounted(t *testing.T) {
	const fpm, php = "/usr/sbin/php-fpm8.2", "/usr/bin/php8.2"
	sleeps := func(line int) *capture.Capture {
		return doing("sleep", "a.php", line, map[string]any{"proc.state": "S"})
	}
	web2, later := web1, web1
	web2.Host.Name = "web2"
	later.Started = web1.Started.Add(time.Hour)
	for _, c := range []struct {
		name string
		see  func(*Builder)
		want []string
	}{
		{"the same line or another one", func(b *Builder) {
			for pid, line := range []int{7, 7, 7, 8} {
				b.at(web1, pid+1, "www", fpm, 1, sleeps(line))
			}
		}, []string{"1 3/4", "2 3/4", "3 3/4", "4 1/4"}},
		{"pools, and programs that have none", func(b *Builder) {
			b.at(web1, 1, "www", fpm, 1, sleeps(7))
			b.at(web1, 2, "www", fpm, 1, sleeps(7))
			b.at(web1, 3, "api", fpm, 1, sleeps(7))
			b.at(web1, 4, "", php, 1, sleeps(7))
			b.at(web1, 5, "", php, 1, sleeps(8))
		}, []string{"1 2/2", "2 2/2", "3 1/1", "4 1/2", "5 1/2"}},
		{"a pool by its title", func(b *Builder) {
			for pid := 1; pid <= 2; pid++ {
				c := sleeps(7)
				c.Target.Cmdline = "php-fpm: pool www"
				b.at(web1, pid, strings.Repeat("www", pid%2), fpm, 1, c)
			}
		}, []string{"1 2/2", "2 2/2"}},
		{"two hosts", func(b *Builder) {
			b.at(web1, 1, "www", fpm, 1, sleeps(7))
			b.at(web1, 2, "www", fpm, 1, sleeps(7))
			b.at(web2, 3, "www", fpm, 1, sleeps(7))
			b.at(web2, 4, "www", fpm, 1, sleeps(7))
			b.at(web2, 5, "www", fpm, 1, sleeps(7))
		}, []string{"1 2/2", "2 2/2", "3 3/3", "4 3/3", "5 3/3"}},
		{"those that had ended do not count", func(b *Builder) {
			for round := 1; round <= 3; round++ {
				b.at(web1, 1, "www", fpm, round, sleeps(7))
				b.at(web1, 2, "www", fpm, round, sleeps(7))
				b.at(web1, 10+round, "www", fpm, round, sleeps(7))
			}
		}, []string{"1 3/3", "2 3/3", "11 3/3", "12 3/3", "13 3/3"}},
		{"nor those of an earlier collection", func(b *Builder) {
			for pid := 1; pid <= 3; pid++ {
				b.at(web1, pid, "www", fpm, 1, sleeps(7))
			}
			b.at(later, 3, "www", fpm, 1, sleeps(7))
			b.at(later, 4, "www", fpm, 1, sleeps(7))
		}, []string{"1 3/3", "2 3/3", "3 2/2", "4 2/2"}},
		{"one collection twice", func(b *Builder) {
			for range 2 {
				b.at(web1, 1, "www", fpm, 1, sleeps(7))
				b.at(web1, 2, "www", fpm, 1, sleeps(7))
			}
		}, []string{"1 2/2", "2 2/2"}},
		{"one alone tells nothing of its pool", func(b *Builder) {
			b.at(web1, 1, "www", fpm, 1, sleeps(7))
			b.at(web2, 2, "www", fpm, 1, sleeps(7))
		}, []string{"1 <nil>/<nil>", "2 <nil>/<nil>"}},
		{"captures of hosts that are not known", func(b *Builder) {
			b.at(capture.Header{}, 1, "www", fpm, 1, sleeps(7))
			b.at(capture.Header{}, 2, "www", fpm, 1, sleeps(7))
		}, []string{"1 <nil>/<nil>", "2 <nil>/<nil>"}},
		{"a look that saw no stack", func(b *Builder) {
			none := sleeps(7)
			none.Stacks, none.Events, none.Observation.Samples = nil, nil, 0
			b.at(web1, 1, "www", fpm, 1, none)
			b.at(web1, 2, "www", fpm, 1, sleeps(7))
		}, []string{"1 <nil>/2", "2 1/2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := NewBuilder()
			c.see(b)
			if got := counted(b.Model(nil, time.Time{})); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestRulesKnowThePool holds for a report on the file as it did for the collection.
func TestRulesKnowThePool(t *testing.T) {
	set, problems := rules.Load(fstest.MapFS{"a.yaml": {Data: []byte(`
schema: phpwhy/rule/v1
id: shop.all-in-one-place
title: Most of the pool is in one place
severity: high
bind: {n: pool.same_stack, of: pool.workers}
match:
  all:
    - php: |
        leaf internal sleep
        user as=site
    - expr: pool.workers >= 4 && 2 * pool.same_stack > pool.workers
message: "{{n}} of {{of}} are at {{site}}"
`)}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	live := NewBuilder()
	var file bytes.Buffer
	w, err := capture.NewStreamWriter(&file, web1)
	if err != nil {
		t.Fatal(err)
	}
	for pid, line := range []int{7, 7, 7, 8} {
		c := doing("sleep", "a.php", line, map[string]any{"proc.state": "S"})
		live.see(web1, pid+1, 1, c)
		id, err := w.Process(pid+1, uint64(pid+1), "www", c.Target)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Look(id, 1, time.Second, c); err != nil {
			t.Fatal(err)
		}
		if c.Facts["pool.workers"] != nil {
			t.Error("the collector's own facts were changed")
		}
	}
	if err := w.End(1, "done"); err != nil {
		t.Fatal(err)
	}
	later := NewBuilder()
	if err := later.Read("a file", capture.NewStream(&file)); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*Builder{"live": live, "report": later} {
		m := b.Model(set, time.Time{})
		if len(m.Findings) != 1 || len(m.Findings[0].Workers) != 3 || m.Findings[0].Message != "3 of 4 are at a.php:7" {
			t.Errorf("%s: %+v", name, m.Findings)
		}
		if again := b.Model(set, time.Time{}); !slices.Equal(counted(again), counted(m)) {
			t.Errorf("%s: %q the second time, %q", name, counted(again), counted(m))
		}
	}
}
