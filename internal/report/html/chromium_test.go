//go:build matrix

package html

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// harness shows the page in a frame, uses it the way a person does, and leaves
// what it saw as JSON. The page's policy is in force all the time.
const harness = `<!DOCTYPE html><meta charset="utf-8"><body><iframe id="f" src="/page" width="WIDTH" height="900"></iframe><pre id="out"></pre><script>
"use strict";
const pause = () => new Promise((done) => setTimeout(done, 60));
const frame = document.getElementById("f");
frame.addEventListener("load", async () => {
  const out = {violations: [], errors: []};
  try {
    const win = frame.contentWindow, d = frame.contentDocument, $ = (id) => d.getElementById(id);
    win.addEventListener("error", (e) => out.errors.push(String(e.message)));
    d.addEventListener("securitypolicyviolation", (e) => out.violations.push(e.violatedDirective));
    const frames = () => [...d.querySelectorAll("#flame .frame")].map((e) => e.textContent);
    const key = (k) => $("flame").dispatchEvent(new win.KeyboardEvent("keydown", {key: k, bubbles: true, cancelable: true}));
    const detail = () => $("detail").textContent;
    const set = (id, v, type) => { $(id).value = v; $(id).dispatchEvent(new win.Event(type, {bubbles: true})); };
    await pause();
    out.ready = d.documentElement.dataset.ready;
    out.first = frames()[0];
    out.carets = [...d.querySelectorAll("#table th button")].map((e) => win.getComputedStyle(e, "::after").content).join("");
    set("kind", "both", "change"); await pause();
    out.all = frames();
    out.images = d.images.length;
    out.scripts = d.scripts.length;
    out.wide = d.documentElement.scrollWidth - d.documentElement.clientWidth;
    key("ArrowDown"); out.down = detail();
    key("ArrowDown"); key("ArrowDown"); key("ArrowRight"); out.right = detail();
    key("ArrowUp"); out.up = detail();
    key("ArrowDown"); key("Enter"); await pause(); out.zoomed = frames().length; out.above = d.querySelectorAll("#flame .above").length;
    key("Escape"); await pause(); out.reset = frames().length;
    set("search", "CONCAT", "input"); await pause();
    out.found = [...d.querySelectorAll("#flame .found")].map((e) => e.textContent);
    out.matched = $("matched").textContent;
    key("n"); out.next = detail();
    set("search", "", "input");
    set("kind", "samples", "change"); await pause(); out.samples = frames()[0];
    $("reset").click(); await pause(); out.afterReset = frames()[0];
    d.querySelector("#workers button.pid").click(); await pause(); out.stopped = frames()[0];
    set("kind", "both", "change");
    d.querySelector("#workers button.pid").click(); await pause(); out.worker = frames()[0];
    d.querySelector("[data-show=g1]").click(); await pause(); out.group = frames()[0];
    const pids = () => [...d.querySelectorAll("#table tbody .pid")].map((e) => e.textContent).join(" ");
    const head = (name) => [...d.querySelectorAll("#table th button")].find((b) => b.textContent === name);
    out.pids = pids(); head("PID").click(); out.sorted = pids(); head("PID").click(); out.reversed = pids();
    head("CPU").click(); out.byCPU = pids(); out.ariaSort = head("CPU").parentElement.getAttribute("aria-sort");
    out.phpBold = win.getComputedStyle(d.querySelector("#flame .php")).fontWeight;
    out.nativeHatch = win.getComputedStyle(d.querySelector("#flame .native")).backgroundImage.includes("gradient");
    // Nothing else may run or be loaded.
    d.body.append(Object.assign(d.createElement("script"), {textContent: "window.ran = 1"}));
    d.body.append(Object.assign(d.createElement("img"), {src: "/leak"}));
    await pause();
    out.ran = win.ran === undefined ? "no" : "yes";
  } catch (e) { out.errors.push(String(e)); }
  document.getElementById("out").textContent = JSON.stringify(out);
  document.body.dataset.done = "yes";
});
</script>`

// seen is what the harness leaves.
type seen struct {
	Violations, Errors, All, Found                    []string
	Ready, Down, Right, Up, Matched, Next, Samples    string
	AfterReset, Worker, Group, Pids, Sorted, Reversed string
	ByCPU, AriaSort, PHPBold, Ran                     string
	First, Stopped, Carets                            string
	NativeHatch                                       bool
	Images, Scripts, Wide, Zoomed, Above, Reset       int
}

// chromium opens a URL and returns the document that came of it.
func chromium(t *testing.T, url string) string {
	t.Helper()
	bin, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("missing: chromium")
		}
		t.Skip("missing: chromium (make matrix installs it)")
	}
	cmd := exec.Command(bin, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(), "--virtual-time-budget=20000", "--dump-dom", url)
	cmd.Env = append(os.Environ(), "DBUS_SESSION_BUS_ADDRESS=disabled:")
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", bin, err)
	}
	return string(out)
}

// browse shows a page in Chromium at a width and returns what the harness saw
// and what was asked of the server.
func browse(t *testing.T, page, width string) (seen, []string) {
	t.Helper()
	var mu sync.Mutex
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path)
		mu.Unlock()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		switch r.URL.Path {
		case "/page":
			_, _ = w.Write([]byte(page))
		case "/":
			_, _ = w.Write([]byte(strings.Replace(harness, "WIDTH", width, 1)))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer srv.Close()
	dom := chromium(t, srv.URL+"/")
	text := strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(block(t, dom, `<pre id="out">`, "</pre>"))
	var s seen
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	mu.Lock()
	defer mu.Unlock()
	return s, asked
}

func TestChromiumShowsAndUsesThePage(t *testing.T) {
	s, asked := browse(t, written(t, shop(""), growth("")), "1000")
	if len(s.Errors) > 0 || s.Ready != "yes" {
		t.Fatalf("the script fails: %v", s.Errors)
	}
	for _, c := range []struct{ what, got, want string }{
		{"the root", s.All[0], "all, 17 events"},
		{"one down", s.Down, "main · native · in php · 17 of 17 events"},
		{"the neighbour", s.Right, "wait · PHP · /srv/app/x.php:9 · 5 of 17 events, 29.4 %"},
		{"up from it", s.Up, "{main} · PHP · /srv/app/x.php:21"},
		{"what matches a search", strings.Join(s.Found, "|"), "concat_function"},
		{"how many match", s.Matched, "matches 70.6 % of events"},
		{"the next match", s.Next, "concat_function"},
		{"samples alone", s.Samples, "all, 7 events"},
		{"at first, samples of several workers", s.First, "all, 7 events"},
		{"after a reset", s.AfterReset, "all, 7 events"},
		{"a worker without samples", s.Stopped, "all, 7 events"},
		{"one worker", s.Worker, "all, 7 events"},
		{"one group", s.Group, "all, 5 events"},
		{"the table", s.Pids, "101 20 3"},
		{"sorted by pid", s.Sorted + "/" + s.Reversed, "3 20 101/101 20 3"},
		{"sorted by CPU", s.ByCPU + " " + s.AriaSort, "101 20 3 descending"},
		{"another script", s.Ran, "no"},
		{"PHP frames' weight", s.PHPBold, "700"},
	} {
		if !strings.HasPrefix(c.got, c.want) {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}
	if strings.Count(s.Carets, "↕") != 11 {
		t.Errorf("the heads of the table show %s", s.Carets)
	}
	if len(s.All) != 15 || s.Reset != 15 || s.Zoomed >= 15 || s.Above == 0 || !s.NativeHatch {
		t.Errorf("%d frames, %d after zooming (%d above), %d after Escape", len(s.All), s.Zoomed, s.Above, s.Reset)
	}
	// The two that the harness tried, and none of the page's own.
	if strings.Join(s.Violations, " ") != "script-src-elem img-src" {
		t.Errorf("violations of the policy: %q", s.Violations)
	}
	for _, path := range asked {
		if path != "/" && path != "/page" && path != "/favicon.ico" {
			t.Errorf("%s was asked for", path)
		}
	}
}

func TestChromiumShowsHostileNamesAsText(t *testing.T) {
	for _, width := range []string{"1000", "400"} {
		s, _ := browse(t, written(t, shop(evil), growth(evil)), width)
		if len(s.Errors) > 0 || s.Images != 0 || s.Scripts != 2 || len(s.All) != 15 {
			t.Errorf("at %s pixels: errors %v, %d images, %d scripts, %d frames", width, s.Errors, s.Images, s.Scripts, len(s.All))
		}
		if !strings.Contains(strings.Join(s.All, " "), `</script></style></title>--><img src=x onerror=alert(1)>`) {
			t.Errorf("the name is not shown: %q", s.All)
		}
		if s.Wide > 0 {
			t.Errorf("at %s pixels the page is %d pixels too wide", width, s.Wide)
		}
	}
}

func TestChromiumFoldsRecursion(t *testing.T) {
	fs := []stack.Frame{native("mmap")}
	for range 2000 {
		fs = append(fs, php("visit", 18))
	}
	fs = append(fs, php("{main}", 30))
	m := &triage.Model{Workers: []triage.Worker{{PID: 7}}, Groups: []triage.Group{{Title: "x"}}, Events: 3, Hosts: []triage.Host{{Name: "h"}},
		Stacks: []triage.Stack{{Count: 3, Frames: fs, Seen: []triage.Seen{{Kind: capture.Stop, N: 3}}}, {Count: 1, Frames: fs[2000:], Seen: []triage.Seen{{Kind: capture.Stop, N: 1}}}}}
	// The first call is wider than the others: one event ended there.
	s, _ := browse(t, written(t, m, nil), "1000")
	if got := strings.Join(s.All, "|"); got != "all, 4 events|{main} x.php:30|visit x.php:18|visit x.php:18 ×1,999|mmap" {
		t.Errorf("drawn: %s (errors %v)", got, s.Errors)
	}
	if !strings.HasPrefix(s.Right, "visit · PHP · /srv/app/x.php:18 · calls itself, 1,999 deep · 3 of 4 events") {
		t.Errorf("detail: %s", s.Right)
	}
}
