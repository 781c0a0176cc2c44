package triage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/rules"
)

// maxChain bounds how far holders of holders are followed.
const maxChain = 64

// edge is what one worker waits for.
type edge struct {
	kind, what string
	pid        int    // 0: nobody is known
	who        string // its command line, if that is known
	fate       fate
}

// fate is what keeps a holder from giving back what it has.
type fate struct{ ended, stopped bool }

// waiting reads it off a worker's facts.
func waiting(facts map[string]any) (edge, bool) {
	num := func(name string) int {
		n, _ := facts[name].(int64)
		return int(n)
	}
	str := func(name string) string {
		s, _ := facts[name].(string)
		return s
	}
	switch {
	case str("lock.kind") != "":
		var f fate
		f.ended, _ = facts["lock.holder_ended"].(bool)
		f.stopped, _ = facts["lock.holder_stopped"].(bool)
		return edge{str("lock.kind"), str("lock.path"), num("lock.holder_pid"), str("lock.holder_cmdline"), f}, true
	case num("lock.contended_pid") > 0:
		return edge{"lock", str("lock.contended_path"), num("lock.contended_pid"), inBrackets(str("lock.contended_holder")), fate{}}, true
	case num("child.pid") > 0:
		return edge{"child", str("child.cmdline"), num("child.pid"), "", fate{}}, true
	case num("fd.held_by") > 0:
		return edge{cmp.Or(str("fd.kind"), "file"), str("fd.path"), num("fd.held_by"), inBrackets(str("fd.holder")), fate{}}, true
	case str("fd.peer") != "" || num("fd.peer_pid") > 0:
		stopped, _ := facts["fd.peer_stopped"].(bool)
		return edge{"peer", cmp.Or(str("fd.peer"), str("fd.local"), "a socket"), num("fd.peer_pid"), str("fd.peer_cmdline"), fate{stopped: stopped}}, true
	}
	return edge{}, false
}

// inBrackets is the command line in a holder's name: "pid 812 (php-fpm: pool www)".
func inBrackets(holder string) string {
	_, rest, ok := strings.Cut(holder, " (")
	cmdline, _, closed := strings.Cut(rest, ")")
	if !ok || !closed {
		return ""
	}
	return cmdline
}

// waits joins each group's waits with the workers that are waited for.
func (s *sorter) waits() {
	edges := make([]edge, len(s.m.Workers))
	byPID := make(map[[2]int]int)
	for i := range s.m.Workers {
		w := &s.m.Workers[i]
		// Who is idle waits for a client, which is no matter.
		if f := leading(s.found[i]); f == nil || f.Kind != rules.Benign {
			if e, ok := waiting(w.Facts); ok && !running(w.Facts) && (e.kind == "peer" || s.lasts(i)) {
				edges[i] = e
			}
		}
		// Of two with one pid, the one that lives, else the later one.
		k := [2]int{w.Host, w.PID}
		if old, ok := byPID[k]; !ok || s.m.Workers[old].Ended || !w.Ended {
			byPID[k] = i
		}
	}
	holder := func(i int) int {
		if edges[i].pid == 0 {
			return -1
		}
		if h, ok := byPID[[2]int{s.m.Workers[i].Host, edges[i].pid}]; ok {
			return h
		}
		return -1
	}
	for g := range s.m.Groups {
		s.m.Groups[g].Waits = s.waitsOf(&s.m.Groups[g], edges, holder)
	}
}

// lasts reports whether worker i is held up by what its last look saw it wait for, be
// it one wait or many: a lock that all take for a moment is in its turn somebody's.
func (s *sorter) lasts(i int) bool {
	w := s.b.workers[s.from[i]]
	if d, _ := w.Facts["wait.lasting_s"].(float64); d > 0 {
		return true
	}
	n := 0
	for k, c := range w.counts {
		if k.stack == w.last {
			n += c
		}
	}
	return 2*n >= w.Looks
}

type waitKey struct {
	edge
	host int
}

func (s *sorter) waitsOf(g *Group, edges []edge, holder func(int) int) []Wait {
	out := []Wait{}
	by := make(map[waitKey]int)
	for _, i := range g.Workers {
		e := edges[i]
		if e == (edge{}) {
			continue
		}
		k := waitKey{e, s.m.Workers[i].Host}
		at, ok := by[k]
		if !ok {
			at = len(out)
			by[k] = at
			out = append(out, s.wait(i, e, holder))
		}
		out[at].Workers = append(out[at].Workers, i)
	}
	slices.SortStableFunc(out, func(a, b Wait) int { return cmp.Compare(len(b.Workers), len(a.Workers)) })
	return out
}

// wait describes what worker i waits for, and follows those who have it.
func (s *sorter) wait(i int, e edge, holder func(int) int) Wait {
	w := Wait{Kind: e.kind, What: e.what, HolderPID: e.pid, Holder: holder(i), Chain: []int{}, fate: e.fate}
	if w.Holder < 0 {
		w.HolderWho = e.who
		return w
	}
	h := &s.m.Workers[w.Holder]
	w.HolderWho = cmp.Or(h.Target.Cmdline, h.Target.Exe)
	if st := s.b.workers[s.from[w.Holder]].last; st >= 0 {
		w.HolderSite, w.HolderDoing = siteOf(s.b.stacks.all[st].Frames)
	}
	if h.Request != nil {
		w.HolderURI = strings.TrimSpace(h.Request.Method + " " + path(h.Request.URI))
	}
	seen := map[int]bool{i: true}
	for at := w.Holder; at >= 0 && len(w.Chain) < maxChain; at = holder(at) {
		w.Chain = append(w.Chain, at)
		if seen[at] {
			w.Deadlock = true
			break
		}
		seen[at] = true
	}
	return w
}

// path is a URI without its query, which may hold anything.
func path(uri string) string {
	p, _, _ := strings.Cut(uri, "?")
	return p
}

// canonical is what makes two stacks of different workers the same: PHP's frames
// with the place of the innermost code, and, of one that waits, the named native
// functions below PHP. In code that runs these change all the time.
func canonical(fs []stack.Frame, running bool) string {
	var b strings.Builder
	placed, below, php := false, true, phpFrames(fs)
	for i := range fs {
		f := &fs[i]
		if f.Kind == stack.Native {
			if f.Function != "" && !f.Inlined && (!php || below && !running) {
				fmt.Fprintf(&b, "n %s\n", f.Function)
			}
			continue
		}
		below = false
		fmt.Fprintf(&b, "p %s %s", f.QualifiedName(), f.File)
		if !f.Internal && !placed {
			placed = true
			if !running {
				fmt.Fprintf(&b, ":%d", f.Line)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// what says in a few words what a stack does.
func what(fs []stack.Frame, running bool) string {
	at, doing := siteOf(fs)
	leaf := ""
	for i := range fs {
		if fs[i].Kind == stack.PHP {
			break
		}
		if fs[i].Function != "" {
			leaf = fs[i].Function
			break
		}
	}
	switch {
	case doing != "":
		return "in " + doing + "()"
	case at != (Site{}) && running:
		return "runs PHP code"
	case at != (Site{}) && leaf != "":
		return "in PHP code, at " + leaf
	case at != (Site{}):
		return "in PHP code"
	case leaf != "":
		return "outside PHP code, in " + leaf
	}
	return "outside PHP code"
}

// forHolder reports whether a process was looked at only because others wait for it.
func forHolder(w *Worker) bool {
	is, _ := w.Facts["look.for_holder"].(bool)
	return is && w.Looks == 1
}

// outsiders notes the processes that nobody chose.
func (m *Model) outsiders() {
	var pids []string
	for i := range m.Workers {
		if w := &m.Workers[i]; forHolder(w) {
			pids = append(pids, m.PID(w.Host, w.PID))
		}
	}
	if len(pids) > 0 {
		m.Notes = append(m.Notes, "not chosen, but looked at once because others wait for it: "+strings.Join(pids, ", "))
	}
}

// summary is one sentence on what most workers do, of those that are not healthy.
func (m *Model) summary() string {
	n := len(m.Workers)
	for i := range m.Workers {
		if forHolder(&m.Workers[i]) {
			n--
		}
	}
	switch {
	case n == 0:
		return "no worker was looked at"
	case m.Groups[0].Kind == string(rules.Benign):
		return fmt.Sprintf("%s healthy: %s", of(n, n), lower(m.Groups[0].Title))
	}
	g := &m.Groups[0]
	for i := range m.Groups {
		// A wait says as much as a cause.
		if other := &m.Groups[i]; other.Rank() <= 1 && len(other.Workers) > len(g.Workers) {
			g = other
		}
	}
	if len(g.Waits) > 0 && 2*len(g.Waits[0].Workers) > len(g.Workers) {
		w := m.everywhere(&g.Waits[0])
		return of(len(w.Workers), n) + " " + m.Waiting(&w)
	}
	s := of(len(g.Workers), n) + ": " + lower(g.Title)
	if g.Site.File != "" {
		s += fmt.Sprintf(", at %s:%d", g.Site.File, g.Site.Line)
	}
	return s
}

// everywhere is a wait with the workers of all groups that wait so: others may have
// come to the same lock in other code.
func (m *Model) everywhere(w *Wait) Wait {
	all := *w
	all.Workers = nil
	host := m.Workers[w.Workers[0]].Host
	for g := range m.Groups {
		for i := range m.Groups[g].Waits {
			o := &m.Groups[g].Waits[i]
			if o.Kind == w.Kind && o.What == w.What && o.HolderPID == w.HolderPID && m.Workers[o.Workers[0]].Host == host {
				all.Workers = append(all.Workers, o.Workers...)
			}
		}
	}
	return all
}

// PID is a process of a host, with the host's name where there are several.
func (m *Model) PID(host, pid int) string {
	if len(m.Hosts) > 1 && host >= 0 && host < len(m.Hosts) && m.Hosts[host].Name != "" {
		return fmt.Sprintf("%s:%d", m.Hosts[host].Name, pid)
	}
	return fmt.Sprint(pid)
}

// Waiting says for whom: "wait for flock on /srv/x held by pid 812, which is in
// sleep() at Session.php:88". A single worker waits.
func (m *Model) Waiting(w *Wait) string {
	s, them := "wait for ", "them"
	if len(w.Workers) == 1 {
		s, them = "waits for ", "it"
	}
	switch w.Kind {
	case "peer":
	case "child":
		s += "a child"
	case "semaphore":
		s += "a semaphore"
	case "futex":
		s += "a lock in memory"
	default:
		s += w.Kind
	}
	if w.What != "" {
		s += onOf(w.Kind) + w.What
	}
	host := -1
	if len(w.Workers) > 0 {
		host = m.Workers[w.Workers[0]].Host
	}
	pid := m.PID(host, w.HolderPID)
	switch {
	case w.Deadlock:
		return s + fmt.Sprintf(", in a circle: pid %s, which has it, waits for %s in turn", pid, them)
	case w.HolderPID == 0:
		return s
	case w.Kind == "child":
		return s + ", pid " + pid
	}
	s += hasIt(w.Kind) + pid
	if w.fate.ended {
		return s + ", which has ended"
	}
	if w.Holder < 0 && w.HolderWho != "" {
		s += " (" + w.HolderWho + ")"
	}
	switch {
	case w.fate.stopped:
		return s + ", which was stopped by a signal and does nothing until it is continued"
	case w.Holder < 0:
		return s + ", which was not looked at"
	}
	switch {
	case w.HolderDoing != "":
		s += ", which is in " + w.HolderDoing + "()"
	case w.HolderSite != (Site{}):
		s += ", which is"
	default:
		return s + ", which is outside PHP code"
	}
	if w.HolderSite.File != "" {
		s += fmt.Sprintf(" at %s:%d", w.HolderSite.File, w.HolderSite.Line)
	}
	if len(w.Chain) > 1 {
		last := &m.Workers[w.Chain[len(w.Chain)-1]]
		s += " and waits in turn; at the end is pid " + m.PID(last.Host, last.PID)
	}
	return s
}

// hasIt says what a process is to what is waited for: a lock is held, a pipe and a
// connection have another end.
func hasIt(kind string) string {
	switch kind {
	case "pipe", "fifo":
		return ", at whose other end is pid "
	case "peer":
		return ", which is pid "
	}
	return ", held by pid "
}

func onOf(kind string) string {
	switch kind {
	case "child":
		return " "
	case "peer":
		return ""
	}
	return " on "
}

func of(n, all int) string {
	if all == 1 {
		return "1 worker"
	}
	return fmt.Sprintf("%d of %d workers", n, all)
}

// lower begins a title in the middle of a sentence.
func lower(s string) string {
	for _, a := range []string{"A ", "An ", "The ", "One ", "This "} {
		if strings.HasPrefix(s, a) {
			return strings.ToLower(s[:1]) + s[1:]
		}
	}
	return s
}
