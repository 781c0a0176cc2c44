// The flame graph, and what makes the table sortable. Text from the data enters
// the page by textContent and as option labels only, never as markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PHP = 1, INTERNAL = 2, INLINED = 4, UNKNOWN = 8;
  const KIND = 0, NAME = 1, FILE = 2, LINE = 3;
  const ROW = 19; // pixels from one row of frames to the next
  const MOST = 20000; // elements that are drawn at a time
  const $ = (id) => document.getElementById(id);
  const count = (n) => n.toLocaleString("en");

  // --- the tree -----------------------------------------------------------
  const size = data.node.length + 1;
  const children = Array.from({ length: size }, () => []);
  for (let i = 1; i < size; i++) children[data.parent[i - 1]].push(i);
  const frameOf = (n) => (n === 0 ? null : data.frames[data.node[n - 1]]);
  const parentOf = (n) => (n === 0 ? -1 : data.parent[n - 1]);
  let total = new Float64Array(size), self = new Float64Array(size);

  // A worker that was stopped at breakpoints has hundreds of events for a few of
  // the others, and would leave them no width: of several, samples count.
  const usual = (() => {
    const sampled = new Set(), stopped = new Set();
    for (const seen of data.seen) {
      for (let k = 0; k < seen.length; k += 3) {
        if (seen[k + 1] > 0) stopped.add(seen[k]);
        if (seen[k + 2] > 0) sampled.add(seen[k]);
      }
    }
    return stopped.size > 0 && sampled.size > 0 && data.workers.length > 1 ? "samples" : "both";
  })();
  const state = { zoom: 0, at: 0, who: "", kind: usual, search: "" };
  let found = null; // nodes that match the search, or null

  function weigh() {
    total = new Float64Array(size);
    self = new Float64Array(size);
    const index = parseInt(state.who.slice(1), 10);
    const wanted = (w) => {
      if (state.who === "") return true;
      if (state.who[0] === "w") return w === index;
      return w >= 0 && data.member[w] === index;
    };
    data.ends.forEach((node, i) => {
      const seen = data.seen[i];
      for (let k = 0; k < seen.length; k += 3) {
        if (!wanted(seen[k])) continue;
        if (state.kind !== "samples") self[node] += seen[k + 1];
        if (state.kind !== "stops") self[node] += seen[k + 2];
      }
    });
    for (let i = 0; i < size; i++) total[i] = self[i];
    // Parents come before their children in the data.
    for (let i = size - 1; i > 0; i--) total[parentOf(i)] += total[i];
    for (const list of children) list.sort((a, b) => total[b] - total[a] || a - b);
  }

  function search() {
    const text = state.search.toLowerCase();
    if (text === "") { found = null; return; }
    const hit = data.frames.map((f) => f[NAME].toLowerCase().includes(text) || (f[FILE] + ":" + f[LINE]).toLowerCase().includes(text));
    found = new Uint8Array(size);
    for (let i = 1; i < size; i++) found[i] = hit[data.node[i - 1]] ? 1 : 0;
  }

  // Events in which a match is on the stack: those of the outermost matches.
  function matched() {
    let sum = 0;
    const inside = new Uint8Array(size);
    for (let i = 1; i < size; i++) {
      const p = parentOf(i);
      if (inside[p]) { inside[i] = 1; continue; }
      if (found[i]) { inside[i] = 1; sum += total[i]; }
    }
    return sum;
  }

  // --- drawing ------------------------------------------------------------
  const flame = $("flame");
  const sheet = document.createElement("div");
  sheet.className = "sheet";
  flame.append(sheet);
  let drawn = new Map();
  let sheetWidth = 1;
  // A function that calls itself is one frame with a count, as in the text
  // report: its first node leads to its last, and back.
  const FOLD = 3; // calls from which on they are folded
  let lastOf = new Map(), headOf = new Map(), times = new Map();

  function label(n) {
    const f = frameOf(n);
    if (f === null) return "all, " + count(total[0]) + (total[0] === 1 ? " event" : " events");
    if (!(f[KIND] & PHP)) return f[NAME];
    const file = f[FILE].slice(f[FILE].lastIndexOf("/") + 1);
    return f[NAME] + (file ? " " + file + (f[LINE] ? ":" + f[LINE] : "") : "");
  }

  function looks(n, odd) {
    const f = frameOf(n);
    if (f === null) return "frame all";
    let c = "frame " + (f[KIND] & PHP ? "php" : "native");
    if (f[KIND] & INTERNAL) c += " internal";
    if (f[KIND] & INLINED) c += " inlined";
    if (f[KIND] & UNKNOWN) c += " unknown";
    if (odd) c += " odd";
    return c;
  }

  // fold returns the last of the calls that n begins, n itself for most.
  function fold(n) {
    let last = n, k = 1;
    for (;;) {
      const c = children[last][0]; // the widest
      if (n === 0 || c === undefined || total[c] !== total[last] || data.node[c - 1] !== data.node[n - 1]) break;
      last = c;
      k++;
    }
    if (k < FOLD) return n;
    lastOf.set(n, last);
    headOf.set(last, n);
    times.set(n, k);
    return last;
  }

  function place(n, x, width, depth, extra) {
    const el = document.createElement("div");
    el.className = looks(n, data.node[n - 1] % 2) + (extra || "") + (width < 12 ? " thin" : "") + (found && found[n] ? " found" : "") + (n === state.at ? " at" : "");
    // Shares, not pixels: the drawing fits paper, too.
    el.style.left = (100 * x) / sheetWidth + "%";
    el.style.top = depth * ROW + "px";
    el.style.width = `max(1px, ${(100 * width) / sheetWidth}% - 1px)`;
    if (width > 24) el.textContent = label(n) + (times.has(n) ? " ×" + count(times.get(n)) : "");
    el.dataset.node = n;
    el.id = "f" + n;
    drawn.set(n, el);
    return el;
  }

  function draw() {
    const width = (sheetWidth = Math.max(120, flame.clientWidth - 8));
    const all = document.createDocumentFragment();
    drawn = new Map();
    lastOf = new Map();
    headOf = new Map();
    times = new Map();
    let depth = 0;
    const above = [];
    for (let p = parentOf(state.zoom); p >= 0; p = parentOf(p)) above.push(p);
    above.reverse();
    above.forEach((p, i) => {
      // Of calls to itself, one after the other, the first stands for all.
      if (i > 0 && p > 0 && data.node[above[i - 1] - 1] === data.node[p - 1]) {
        headOf.set(p, headOf.get(above[i - 1]) ?? above[i - 1]);
        return;
      }
      all.append(place(p, 0, width, depth++, " above"));
    });
    let row = total[state.zoom] > 0 ? [[state.zoom, 0, width]] : [];
    let left = MOST;
    while (row.length > 0 && left > 0) {
      const next = [];
      for (const [n, x, w] of row) {
        const last = fold(n);
        all.append(place(n, x, w, depth, ""));
        left--;
        let at = x;
        for (const c of children[last]) {
          const cw = (total[c] / total[n]) * w;
          if (cw >= 0.7) next.push([c, at, cw]);
          at += cw;
        }
      }
      depth++;
      row = next;
    }
    sheet.style.height = depth * ROW + "px";
    sheet.replaceChildren(all);
    flame.classList.toggle("searching", found !== null);
    $("matched").textContent = total[0] === 0 ? "nothing was seen" : found === null ? "" : "matches " + percent(matched(), total[0]) + " of events";
    tell();
  }

  const percent = (n, of) => (of === 0 ? "0 %" : (100 * n / of).toFixed(n === of ? 0 : 1) + " %");

  function tell() {
    const box = $("detail");
    box.replaceChildren();
    const n = state.at, f = frameOf(n);
    const name = document.createElement("code");
    name.textContent = f === null ? "all" : f[NAME];
    box.append(name);
    let text = "";
    if (f !== null) {
      const php = f[KIND] & PHP;
      text += php ? (f[KIND] & INTERNAL ? " · internal PHP function" : " · PHP") : f[KIND] & INLINED ? " · native, inlined" : " · native";
      if (f[FILE]) text += " · " + (php ? f[FILE] + (f[LINE] ? ":" + f[LINE] : "") : "in " + f[FILE]);
    }
    if (times.has(n)) text += " · calls itself, " + count(times.get(n)) + " deep";
    text += " · " + count(total[n]) + " of " + count(total[0]) + " events, " + percent(total[n], total[0]);
    if (state.zoom !== 0 && n !== state.zoom) text += ", " + percent(total[n], total[state.zoom]) + " of what is shown";
    const own = self[lastOf.get(n) ?? n];
    if (own > 0) text += " · innermost in " + count(own);
    box.append(text);
  }

  function select(n, scroll) {
    const was = drawn.get(state.at);
    if (was) was.classList.remove("at");
    state.at = n;
    const el = drawn.get(n);
    if (el) {
      el.classList.add("at");
      if (scroll) el.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    tell();
  }

  function zoom(n) {
    state.zoom = n;
    state.at = n;
    draw();
  }

  function reset() {
    Object.assign(state, { zoom: 0, at: 0, who: "", kind: usual, search: "" });
    $("who").value = "";
    $("kind").value = usual;
    $("search").value = "";
    refresh();
  }

  function refresh() {
    weigh();
    search();
    draw();
  }

  // choose draws one group or worker, with its stops where it has no samples.
  function choose(who) {
    Object.assign(state, { who, zoom: 0, at: 0 });
    refresh();
    if (total[0] === 0 && state.kind !== "both") {
      $("kind").value = state.kind = "both";
      refresh();
    }
  }

  // show makes the graph that of one group (g3) or worker (w7).
  function show(who) {
    if (who[0] === "w" && !$("who").querySelector(`option[value="${CSS.escape(who)}"]`)) return;
    choose(who);
    $("who").value = who;
    $("flame-graph").scrollIntoView();
    flame.focus({ preventScroll: true });
  }

  // --- moving by keys -----------------------------------------------------
  function neighbour(n, by) {
    const x = (el) => parseFloat(el.style.left);
    const here = drawn.get(n);
    if (!here) return n;
    let best = n, near = Infinity;
    for (const [other, el] of drawn) {
      const d = (x(el) - x(here)) * by;
      if (el.style.top === here.style.top && d > 0 && d < near) { near = d; best = other; }
    }
    return best;
  }

  function nextFound(by) {
    if (!found) return;
    const hits = [...drawn.keys()].filter((n) => found[n]);
    if (hits.length === 0) return;
    const i = hits.indexOf(state.at);
    select(hits[(i + by + hits.length + (i < 0 && by < 0 ? 1 : 0)) % hits.length], true);
  }

  flame.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    switch (e.key) {
      case "ArrowDown": { const c = children[lastOf.get(state.at) ?? state.at].find((n) => drawn.has(n)); if (c !== undefined) select(c, true); break; }
      case "ArrowUp": { const p = parentOf(state.at); if (p >= 0) select(headOf.get(p) ?? p, true); break; }
      case "ArrowLeft": select(neighbour(state.at, -1), true); break;
      case "ArrowRight": select(neighbour(state.at, 1), true); break;
      case "Enter": case " ": zoom(state.at); break;
      case "Backspace": zoom(Math.max(0, parentOf(state.zoom))); break;
      case "Home": select(state.zoom, true); break;
      case "n": nextFound(1); break;
      case "N": nextFound(-1); break;
      case "Escape": state.zoom || state.at ? zoom(0) : reset(); break;
      default: return;
    }
    e.preventDefault();
  });
  document.addEventListener("keydown", (e) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName);
    if (e.key === "/" && !typing && !e.ctrlKey && !e.metaKey && !e.altKey) {
      e.preventDefault();
      $("search").focus();
    }
  });

  const nodeAt = (e) => { const el = e.target.closest(".frame"); return el ? parseInt(el.dataset.node, 10) : -1; };
  sheet.addEventListener("click", (e) => { const n = nodeAt(e); if (n >= 0) zoom(n); });
  sheet.addEventListener("mouseover", (e) => { const n = nodeAt(e); if (n >= 0) select(n, false); });
  $("search").addEventListener("input", (e) => { state.search = e.target.value.trim(); search(); draw(); });
  $("search").addEventListener("keydown", (e) => {
    if (e.key === "Enter") { e.preventDefault(); flame.focus(); nextFound(1); }
    if (e.key === "Escape") { e.target.value = ""; state.search = ""; search(); draw(); flame.focus(); }
  });
  $("who").addEventListener("change", (e) => choose(e.target.value));
  $("kind").addEventListener("change", (e) => { Object.assign(state, { kind: e.target.value, zoom: 0, at: 0 }); refresh(); });
  $("reset").addEventListener("click", reset);
  for (const b of document.querySelectorAll("[data-show]")) b.addEventListener("click", () => show(b.dataset.show));

  function options(title, prefix, labels) {
    const group = document.createElement("optgroup");
    group.label = title;
    labels.forEach((text, i) => group.append(new Option(text, prefix + i)));
    if (labels.length > 0) $("who").append(group);
  }
  options("Groups", "g", data.groups.map((g, i) => (i + 1) + ". " + (g || "no rule explains this")));
  options("Workers", "w", data.workers);

  // --- the table ----------------------------------------------------------
  const table = $("table"), body = table.tBodies[0];
  const order = new Intl.Collator("en", { numeric: true });
  [...table.tHead.rows[0].cells].forEach((th, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = th.textContent;
    th.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = th.getAttribute("aria-sort") === "descending" || (th.getAttribute("aria-sort") === null && !body.rows[0]?.cells[column].classList.contains("num"));
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      sortBy(column, up ? 1 : -1);
    });
  });

  function sortBy(column, by) {
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[column], key = cell.dataset.key;
      const text = cell.textContent;
      return { row, text, n: key === undefined ? null : key === "" ? NaN : Number(key) };
    });
    keyed.sort((a, b) => {
      if (a.n === null) return (a.text === "") - (b.text === "") || by * order.compare(a.text, b.text);
      if (Number.isNaN(a.n) || Number.isNaN(b.n)) return Number.isNaN(a.n) - Number.isNaN(b.n); // what is not known comes last
      return by * (a.n - b.n);
    });
    body.replaceChildren(...keyed.map((k) => k.row));
  }

  // Workers come by pid for most reports, and the table says so.
  const column = [...table.tHead.rows[0].cells].findIndex((th) => th.textContent === "PID");
  const pids = [...body.rows].map((row) => Number(row.cells[column].dataset.key));
  if (pids.length > 1 && pids.every((pid, i) => i === 0 || pid >= pids[i - 1])) table.tHead.rows[0].cells[column].setAttribute("aria-sort", "ascending");

  // --- begin --------------------------------------------------------------
  $("tools").hidden = false;
  $("kind").value = usual;
  refresh();
  let waiting = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
  }).observe(flame);
  document.documentElement.dataset.ready = "yes";
})();
