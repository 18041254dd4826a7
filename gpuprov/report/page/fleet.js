// The fleet: what happened, grouped; a map of hosts; losses; the table; and which of the two views is shown.
const state = { text: "", word: "", verdict: "", group: null, sort: "severity", down: false };

function fleetView() {
  const words = tally(data.hosts, word), verdicts = tally(data.hosts.filter((x) => x.verdict), proofWord);
  const table = h("div", { class: "scroll" });
  const count = h("small", {});
  const redraw = () => drawTable(table, count);
  const trouble = data.groups.filter((g) => g.trouble);
  const box = h("input", { type: "search", placeholder: "find host or cause", "aria-label": "find host or cause", value: state.text, oninput: () => { state.text = box.value.toLowerCase(); redraw(); } });
  const pick = (key) => (value) => { state[key] = value; state.group = null; redraw(); };
  redraw();
  return [
    header(words),
    h("div", { class: "tiles" }, summaryTile(words), mapTile()),
    trouble.length > 0 && section("What went wrong", plural(trouble.length, "cause"), h("div", { class: "causes" }, trouble.map((g) => causeCard(g, redraw)))),
    fleetCharts(),
    h("section", { id: "hosts" }, h("h2", {}, "Hosts", count), h("div", { class: "filters" }, box,
      chipRow(sorted(words, SEVERITY).map(([w, n]) => [w, `${w} ${n}`]), () => state.word, pick("word")),
      verdicts.size > 0 && chipRow(sorted(verdicts, PROOFS).map(([w, n]) => [w, `proof: ${w} ${n}`]), () => state.verdict, pick("verdict"))), table),
    checkMatrix(),
    data.slowest.length > 0 && section("Slowest tasks", "over all hosts", slowTable()),
    h("footer", {}, `gpuprov ${data.version} · run ${data.run} · run.json, hosts/*.json and journal.jsonl beside this file have everything`),
  ];
}

function tally(list, key) {
  const counts = new Map();
  for (const item of list) counts.set(key(item), (counts.get(key(item)) || 0) + 1);
  return counts;
}
const sorted = (counts, order) => [...counts].sort((a, b) => order.indexOf(a[0]) - order.indexOf(b[0]));

function header() {
  const code = data.exit_code;
  const simulated = data.hosts.filter((x) => x.simulated).length;
  return h("header", { class: "run" },
    simulated > 0 && h("div", { class: "simulated", role: "note" }, h("b", {}, "SIMULATED"),
      ` ${simulated === data.hosts.length ? "All" : simulated} of ${plural(data.hosts.length, "host")} had doubles of hardware: their checks say nothing about real GPUs.`),
    data.note && h("div", { class: "notice is-warn" }, h("p", {}, data.note)),
    h("p", { class: "mark" }, h("b", {}, "gpuprov"), ` ${when(data.started_at)} · took ${seconds(data.duration_s)}`, data.check && " · check mode: nothing was changed"),
    h("h1", {}, data.inventory || "fleet", data.playbook && h("small", {}, data.playbook)),
    code !== null && h("p", { class: `exit is-${code === 0 ? "ok" : code === 3 ? "warn" : "failed"}` }, h("b", {}, `exit ${code}`), ` ${data.exit_meaning}`),
    h("div", { class: "command" }, h("code", {}, data.command), h("button", { class: "button", onclick: (e) => copy(e.target) }, "copy")),
    (data.warnings || []).map((w) => h("div", { class: "notice is-warn" }, h("p", {}, w))));
}

function copy(button) {
  navigator.clipboard.writeText(data.command).then(() => { button.textContent = "copied"; }, () => { button.textContent = "select it"; });
}

function summaryTile(words) {
  const parts = sorted(words, SEVERITY);
  return h("div", { class: "tile" }, h("p", { class: "big" }, data.hosts.length.toLocaleString("en"), h("small", {}, data.hosts.length === 1 ? "host" : "hosts")),
    h("div", { class: "stack" }, parts.map(([w, n]) => h("i", { class: `is-${w}`, title: `${w} ${n}`, css: { "flex-grow": n } }))),
    h("ul", { class: "legend" }, parts.map(([w, n]) => h("li", {}, h("i", { class: `is-${w}` }), h("b", {}, n), ` ${w}`))));
}

// Few hosts are named, many are squares.
function mapTile() {
  const named = data.hosts.length <= 40;
  return h("div", { class: "tile wide" }, h("div", { class: named ? "map named" : "map", "aria-label": "all hosts" }, data.hosts.map((x) =>
    h("a", { href: `#host=${encodeURIComponent(x.host)}`, class: `is-${word(x)}`, "aria-label": x.host,
      title: `${x.host}: ${word(x)}${x.verdict ? `, proof ${proofWord(x)}` : ""}${x.cause ? `\n${x.cause}` : ""}` }, named && x.host))));
}

function causeCard(group, redraw) {
  return h("button", { class: `cause is-${group.outcome}`, onclick: () => {
    state.group = state.group === group ? null : group;
    redraw();
    document.getElementById("hosts").scrollIntoView({ behavior: "smooth" });
  } }, h("span", {}, badge(group.outcome), h("b", {}, plural(group.hosts.length, "host")), h("span", { class: "quiet" }, folded(group.hosts))),
  h("p", {}, group.cause || "no reason given"), group.hint && h("p", { class: "quiet" }, `hint: ${group.hint}`));
}

function fleetCharts() {
  const found = new Map();
  for (const x of data.hosts) for (const check of x.checks) for (const [key, values] of series(check)) {
    const title = seriesTitle(check.name, key);
    if (!found.has(title)) found.set(title, { ...axis(check, key), lines: [] });
    found.get(title).lines.push({ name: check.device ? `${x.host} ${check.device}` : x.host, values, bad: check.verdict === "fail" });
  }
  return found.size > 0 && section("Training", "every line is a host", h("div", { class: "charts" }, [...found].map(([title, { step, count, lines }]) =>
    h("figure", {}, h("figcaption", {}, title, h("small", {}, plural(lines.length, "line"))), chart(lines, { label: title, step, count })))));
}

function checkMatrix() {
  const names = new Map();
  for (const x of data.hosts) for (const c of x.checks) {
    if (!names.has(c.name)) names.set(c.name, { counts: new Map(), reasons: new Map() });
    const entry = names.get(c.name);
    entry.counts.set(c.verdict, (entry.counts.get(c.verdict) || 0) + 1);
    if (c.verdict !== "pass" && c.reason) entry.reasons.set(c.reason, (entry.reasons.get(c.reason) || 0) + 1);
  }
  if (!names.size) return null;
  const rows = [...names].sort((a, b) => worstOf(a[1].counts) - worstOf(b[1].counts));
  return section("Checks", `${plural(rows.length, "check")} over all hosts`, h("div", { class: "scroll" }, h("table", { class: "checks" },
    h("thead", {}, h("tr", {}, ["check", "verdicts", "", "why"].map((t) => h("th", {}, t)))),
    h("tbody", {}, rows.map(([name, { counts, reasons }]) => h("tr", {}, h("td", {}, name),
      h("td", {}, h("div", { class: "stack small" }, sorted(counts, VERDICTS).map(([v, n]) => h("i", { class: `is-${v}`, css: { "flex-grow": n } })))),
      h("td", {}, sorted(counts, VERDICTS).map(([v, n]) => badge(`${v} ${n}`, v))),
      h("td", { class: "quiet" }, [...reasons].sort((a, b) => b[1] - a[1]).slice(0, 2).map(([r]) => r).join("; "))))))));
}
const worstOf = (counts) => VERDICTS.findIndex((v) => counts.has(v));

const COLUMNS = [
  ["host", (x) => x.host, "host"], ["outcome", (x) => SEVERITY.indexOf(word(x)), "severity"], ["proof", (x) => PROOFS.indexOf(proofWord(x)), "verdict"],
  ["ok", (x) => x.totals.ok, "ok"], ["changed", (x) => x.totals.changed, "changed"], ["failed", (x) => x.totals.failed, "failed"],
  ["skipped", (x) => x.totals.skipped, "skipped"], ["GPUs", (x) => x.found_gpus ?? -1, "gpus"], ["time", (x) => x.duration_s, "time"], ["cause", (x) => x.cause, "cause"],
];

function drawTable(place, count) {
  const members = state.group && new Set(state.group.hosts);
  const rows = data.hosts.filter((x) => (!state.word || word(x) === state.word) && (!state.verdict || proofWord(x) === state.verdict)
    && (!members || members.has(x.host)) && (!state.text || `${x.host} ${x.cause}`.toLowerCase().includes(state.text)));
  const key = COLUMNS.find((c) => c[2] === state.sort)[1];
  const order = new Intl.Collator("en", { numeric: true }).compare;
  rows.sort((a, b) => (typeof key(a) === "string" ? order(key(a), key(b)) : key(a) - key(b)) || order(a.host, b.host));
  if (state.down) rows.reverse();
  count.textContent = rows.length === data.hosts.length ? plural(rows.length, "host") : `${rows.length} of ${plural(data.hosts.length, "host")}`;
  const longest = rows.reduce((n, x) => Math.max(n, x.duration_s), 0);
  place.replaceChildren(h("table", { class: "fleet" },
    h("thead", {}, h("tr", {}, COLUMNS.map(([title, , name]) => h("th", { "aria-sort": state.sort === name ? (state.down ? "descending" : "ascending") : "none" },
      h("button", { onclick: () => { state.down = state.sort === name && !state.down; state.sort = name; drawTable(place, count); } }, title))))),
    h("tbody", {}, rows.map((x) => fleetRow(x, longest)))));
}

function fleetRow(x, longest) {
  const number = (n, kind) => h("td", { class: n ? `number is-${kind}` : "number none" }, n);
  const ran = x.checks.filter((c) => c.verdict !== "skip" && c.verdict !== "unknown").length;
  return h("tr", { onclick: () => { location.hash = `host=${encodeURIComponent(x.host)}`; } },
    h("td", {}, h("a", { href: `#host=${encodeURIComponent(x.host)}` }, x.host)), h("td", {}, badge(word(x))),
    h("td", {}, x.verdict && badge(proofWord(x), x.verdict === "skip" ? "pass" : x.verdict), x.checks.length > 0 && h("small", {}, `${ran}/${x.checks.length}`)),
    number(x.totals.ok, "ok"), number(x.totals.changed, "changed"), number(x.totals.failed, "failed"), number(x.totals.skipped, "skipped"),
    h("td", { class: "number" }, x.found_gpus ?? "", x.expected_gpus !== null && h("small", {}, `/${x.expected_gpus}`)),
    h("td", { class: "time" }, seconds(x.duration_s), h("span", { class: "bar" }, h("i", { css: { width: `${longest ? (100 * x.duration_s) / longest : 0}%` } }))),
    h("td", { class: "why" }, x.cause));
}

function slowTable() {
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["task", "hosts", "median", "longest", "on"].map((t) => h("th", {}, t)))),
    h("tbody", {}, data.slowest.map(([name, hosts, median, longest, host]) => h("tr", {}, h("td", {}, name), h("td", { class: "number" }, hosts),
      h("td", { class: "number" }, seconds(median)), h("td", { class: "number" }, seconds(longest)), h("td", {}, h("a", { href: `#host=${encodeURIComponent(host)}` }, host)))))));
}

function route() {
  const name = location.hash.startsWith("#host=") ? decodeURIComponent(location.hash.slice(6)) : "";
  const host = name && data.hosts.find((x) => x.host === name);
  const page = document.getElementById("page");
  page.replaceChildren();
  fill(page, {}, [host ? hostView(host) : fleetView()]);
  document.body.dataset.view = host ? "host" : "fleet";
  window.scrollTo(0, 0);
}
window.addEventListener("hashchange", route);
route();
