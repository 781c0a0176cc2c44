package triage

import (
	"testing"
	"time"
)

// with makes facts of a wait, with more of them.
func with(facts, more map[string]any) map[string]any {
	for k, v := range more {
		facts[k] = v
	}
	return facts
}

func TestTheSummaryCountsThoseWhoWaitWhereverTheyDo(t *testing.T) {
	ended := map[string]any{"proc.state": "S", "lock.kind": "futex", "lock.holder_pid": int64(7), "lock.holder_ended": true}
	tests := map[string]struct {
		see  func(b *Builder)
		want string
	}{
		"one lock, asked for in two places": {func(b *Builder) {
			for pid := 1; pid <= 3; pid++ {
				b.see(web1, pid, 1, doing("flock", "Import.php", 5, waits(7)))
			}
			b.see(web1, 4, 1, doing("flock", "Export.php", 9, waits(7)))
			b.see(web1, 5, 1, doing("usleep", "Other.php", 7, nil))
		}, "4 of 5 workers wait for flock on /srv/x.lock, held by pid 7, which was not looked at"},
		"a lock in memory, whose holder is gone": {func(b *Builder) {
			for pid := 1; pid <= 3; pid++ {
				b.see(web1, pid, 1, doing("apcu_fetch", "Cache.php", 5, ended))
			}
		}, "3 of 3 workers wait for a lock in memory, held by pid 7, which has ended"},
		"a server that somebody has stopped": {func(b *Builder) {
			for pid := 1; pid <= 2; pid++ {
				b.see(web1, pid, 1, doing("mysqli_query", "Db.php", 5, map[string]any{"proc.state": "S", "fd.peer": "127.0.0.1:3306", "fd.peer_pid": int64(9),
					"fd.peer_cmdline": "mariadbd", "fd.peer_stopped": true}))
			}
		}, "2 of 2 workers wait for 127.0.0.1:3306, which is pid 9 (mariadbd), which was stopped by a signal and does nothing until it is continued"},
		"a semaphore": {func(b *Builder) {
			b.see(web1, 1, 1, doing("sem_acquire", "Queue.php", 5, map[string]any{"proc.state": "S", "lock.kind": "semaphore", "lock.holder_pid": int64(7)}))
			b.see(web1, 2, 1, doing("sem_acquire", "Queue.php", 5, map[string]any{"proc.state": "S", "lock.kind": "semaphore", "lock.holder_pid": int64(7)}))
		}, "2 of 2 workers wait for a semaphore, held by pid 7, which was not looked at"},
		"a lock that all take for a moment is nobody's wait": {func(b *Builder) {
			for round := 1; round <= 6; round++ {
				b.see(web1, 1, round, doing("md5", "Page.php", round, nil))
			}
			b.see(web1, 1, 7, doing("include", "Page.php", 50, with(waits(7), map[string]any{"wait.lasting_s": 0.0})))
		}, "1 worker: in md5(), at Page.php:1"},
		"many short waits for one lock are a wait": {func(b *Builder) {
			for round := 1; round <= 7; round++ {
				b.see(web1, 1, round, doing("flock", "Page.php", 50, with(waits(7), map[string]any{"wait.lasting_s": 0.0})))
			}
		}, "1 worker waits for flock on /srv/x.lock, held by pid 7, which was not looked at"},
		"a wait that began late and lasts is one": {func(b *Builder) {
			for round := 1; round <= 6; round++ {
				b.see(web1, 1, round, doing("md5", "Page.php", round, nil))
			}
			b.see(web1, 1, 7, doing("flock", "Page.php", 50, with(waits(7), map[string]any{"wait.lasting_s": 1.5})))
		}, "1 worker waits for flock on /srv/x.lock, held by pid 7, which was not looked at"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := NewBuilder()
			tt.see(b)
			if got := b.Model(nil, time.Time{}).Summary; got != tt.want {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
		})
	}
}
