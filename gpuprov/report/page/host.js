// One host: what it did, what it proved, what it is.
const HIDDEN_KEYS = new Set(["changed", "failed", "skipped", "skip_reason", "msg", "stdout", "stderr", "rescued"]);

function hostView(host) {
  const at = data.hosts.indexOf(host);
  const link = (to, text, label) => to && h("a", { href: `#host=${encodeURIComponent(to.host)}`, "aria-label": label, class: "button" }, text);
  const versions = versionsOf(host);
  return [
    h("nav", { class: "crumbs" },
      h("a", { href: "#", class: "button" }, "← fleet"),
      h("span", { class: "spacer" }),
      link(data.hosts[at - 1], "‹ previous", "previous host"), link(data.hosts[at + 1], "next ›", "next host")),
    h("header", { class: "host" },
      h("h1", {}, host.host),
      h("p", {}, badge(word(host)), host.verdict && badge(`proof: ${proofWord(host)}`, host.verdict === "skip" ? "pass" : host.verdict), host.simulated && badge("simulated", "warn")),
      h("p", { class: "quiet" }, [host.address, when(host.started_at), host.duration_s && `took ${seconds(host.duration_s)}`, gpus(host)].filter(Boolean).join(" · "))),
    (host.cause || host.hint) && h("div", { class: `notice is-${word(host)}` }, host.cause && h("p", {}, host.cause), host.hint && h("p", { class: "quiet" }, `hint: ${host.hint}`)),
    host.warnings.map((w) => h("div", { class: "notice is-warn" }, h("p", {}, w))),
    host.checks.length > 0 && section("Proof", host.coverage, proofCharts(host), checkTable(host.checks)),
    host.tasks.length > 0 && taskSection(host),
    versions && section("Versions", "as read back from the running process", pairs(versions)),
    Object.keys(host.facts || {}).length > 0 && factSection(host.facts),
  ];
}

function gpus(host) {
  if (host.expected_gpus === null && host.found_gpus === null) return "";
  const found = host.found_gpus === null ? "unknown number of GPUs" : plural(host.found_gpus, "GPU");
  return host.expected_gpus === null ? found : `${found}, ${host.expected_gpus} expected`;
}

function versionsOf(host) {
  const all = {};
  for (const task of host.tasks) {
    const kept = task[3] >= 0 ? data.results[task[3]].result : null;
    if (kept && kept.versions && typeof kept.versions === "object") Object.assign(all, kept.versions);
  }
  return Object.keys(all).length ? all : null;
}

function proofCharts(host) {
  const cards = host.checks.flatMap((check) => series(check).map(([key, values]) =>
    h("figure", {}, h("figcaption", {}, seriesTitle(check.name, key), check.device && h("small", {}, check.device)),
      chart([{ name: host.host, values, bad: check.verdict === "fail" }], { label: seriesTitle(check.name, key), ...axis(check, key) }))));
  const proves = new Set(host.checks.map((c) => c.data && c.data.proves).filter((text) => typeof text === "string"));
  return [cards.length > 0 && h("div", { class: "charts" }, cards), [...proves].map((text) => h("p", { class: "quiet" }, text))];
}

function checkTable(checks) {
  const rows = [...checks].sort((a, b) => VERDICTS.indexOf(a.verdict) - VERDICTS.indexOf(b.verdict));
  return h("div", { class: "scroll" }, h("table", { class: "checks" },
    h("thead", {}, h("tr", {}, ["check", "device", "verdict", "measured", "expected", "why"].map((t) => h("th", {}, t)))),
    h("tbody", {}, rows.map((c) => h("tr", {},
      h("td", {}, c.name, c.simulated && badge("simulated", "warn")), h("td", {}, c.device || ""), h("td", {}, badge(c.verdict)),
      h("td", { class: "number" }, shown(c.measured), c.unit && c.measured !== undefined ? ` ${c.unit}` : ""),
      h("td", { class: "number" }, shown(c.expected)),
      h("td", {}, c.reason || "", c.action && c.action !== "none" && h("span", { class: "quiet" }, ` (action: ${c.action})`)))))));
}

function taskSection(host) {
  const counts = new Map();
  for (const t of host.tasks) counts.set(t[1], (counts.get(t[1]) || 0) + 1);
  const longest = host.tasks.reduce((n, t) => Math.max(n, t[2]), 0);
  const list = h("div", { class: "tasks" });
  let only = "";
  const draw = () => {
    let play = null;
    const rows = [];
    for (const task of host.tasks) {
      if (only && task[1] !== only) continue;
      const shape = data.shapes[task[0]];
      if (shape.play !== play) { play = shape.play; if (play) rows.push(h("h3", {}, play)); }
      rows.push(taskRow(task, shape, longest));
    }
    list.replaceChildren(...rows);
  };
  const chips = chipRow([["", `all ${host.tasks.length}`], ...[...counts].map(([o, n]) => [o, `${o} ${n}`])], () => only, (value) => { only = value; draw(); });
  draw();
  return section("Tasks", plural(host.tasks.length, "task"), chips, list);
}

function chipRow(choices, current, choose) {
  const row = h("div", { class: "chips", role: "group" });
  const draw = () => row.replaceChildren(...choices.map(([value, text]) =>
    h("button", { class: `chip is-${value || "all"}`, "aria-pressed": String(current() === value), onclick: () => { choose(current() === value ? "" : value); draw(); } }, text)));
  draw();
  return row;
}

function taskRow(task, shape, longest) {
  const [, outcome, duration, result, own = {}] = task;
  const kept = result >= 0 ? data.results[result] : null;
  const note = own.msg || own.skip || "";
  const word = kept && kept.result && kept.result.rescued ? "rescued" : outcome;
  const summary = h("summary", {},
    badge(word, outcome),
    h("span", { class: "name" }, shape.role && h("span", { class: "quiet" }, `${shape.role} : `), shape.name, shape.handler && h("small", {}, "handler"), own.item && h("small", {}, own.item)),
    h("span", { class: "note" }, note),
    h("span", { class: "bar" }, h("i", { css: { width: `${longest ? (100 * duration) / longest : 0}%` } })),
    h("span", { class: "time" }, seconds(duration)));
  const details = h("details", { class: `task is-${outcome}` }, summary);
  // Drawn when it is opened: a host may have thousands of tasks. What failed is open.
  const draw = () => {
    if (details.open && details.childElementCount === 1) details.append(h("div", { class: "body" }, taskBody(shape, own, kept, result, longest)));
  };
  details.addEventListener("toggle", draw);
  details.open = outcome === "failed" || outcome === "lost";
  draw();
  return details;
}

function taskBody(shape, own, kept, number, longest) {
  const result = (kept && kept.result) || {};
  const rest = Object.fromEntries(Object.entries(result).filter(([k]) => !HIDDEN_KEYS.has(k)));
  return [
    h("p", { class: "quiet" }, [shape.action, shape.position, shape.id].filter(Boolean).join(" · ")),
    own.msg && h("p", {}, own.msg), own.skip && h("p", {}, `skipped: ${own.skip}`), own.hint && h("p", {}, `hint: ${own.hint}`),
    (own.items || []).map((item) => taskRow(item, data.shapes[item[0]], longest)),
    ((kept && kept.diff) || []).map(diffView),
    ["stdout", "stderr"].map((key) => result[key] && h("div", {}, h("h4", {}, key), h("pre", {}, typeof result[key] === "string" ? result[key] : JSON.stringify(result[key], null, 2)))),
    Object.keys(rest).length > 0 && pairs(rest),
    number === -2 && h("p", { class: "quiet" }, "The result was left out of this page, which would have become too large; hosts/*.json beside it has it."),
  ];
}

function pairs(object) {
  return h("dl", {}, Object.entries(object).map(([k, v]) => [h("dt", {}, k), h("dd", {}, v !== null && typeof v === "object" ? h("code", {}, JSON.stringify(v)) : shown(v))]));
}

function factSection(facts) {
  const list = h("div", {});
  const draw = (text) => list.replaceChildren(pairs(Object.fromEntries(Object.entries(facts).filter(([k, v]) => !text || `${k} ${JSON.stringify(v)}`.toLowerCase().includes(text)))));
  const box = h("input", { type: "search", placeholder: "find a fact", "aria-label": "find a fact", oninput: () => draw(box.value.toLowerCase()) });
  draw("");
  return h("section", {}, h("details", {}, h("summary", {}, h("h2", {}, "Facts", h("small", {}, plural(Object.keys(facts).length, "fact")))), box, list));
}

function diffView(diff) {
  const before = String(diff.before ?? "").replace(/\n$/, ""), after = String(diff.after ?? "").replace(/\n$/, "");
  const lines = typeof diff.prepared === "string" ? diff.prepared.split("\n") : unified(before.split("\n"), after.split("\n"));
  return h("div", {}, h("h4", {}, shown(diff.after_header || diff.before_header || "diff")), h("pre", { class: "diff" },
    lines.map((l) => h("span", { class: l.startsWith("+") ? "plus" : l.startsWith("-") ? "minus" : l.startsWith("@") ? "hunk" : "" }, l || " "))));
}

// A line diff with three lines of context around changes.
function unified(a, b) {
  let start = 0, end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const x = a.slice(start, a.length - end), y = b.slice(start, b.length - end);
  const before = a.slice(Math.max(0, start - 3), start).map((l) => ` ${l}`);
  const after = a.slice(a.length - end, Math.min(a.length, a.length - end + 3)).map((l) => ` ${l}`);
  const head = `@@ line ${start + 1} @@`;
  if (x.length * y.length > 1e6) return [head, ...before, ...x.map((l) => `-${l}`), ...y.map((l) => `+${l}`), ...after];
  return [head, ...before, ...subsequence(x, y), ...after];
}

function subsequence(x, y) {
  const size = Array.from({ length: x.length + 1 }, () => new Uint16Array(y.length + 1));
  for (let i = x.length - 1; i >= 0; i--) for (let j = y.length - 1; j >= 0; j--) {
    size[i][j] = x[i] === y[j] ? size[i + 1][j + 1] + 1 : Math.max(size[i + 1][j], size[i][j + 1]);
  }
  const out = [];
  let i = 0, j = 0;
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && x[i] === y[j]) { out.push(` ${x[i]}`); i++; j++; }
    else if (i < x.length && (j >= y.length || size[i + 1][j] >= size[i][j + 1])) out.push(`-${x[i++]}`);
    else out.push(`+${y[j++]}`);
  }
  return out;
}
