"use strict";
// Building blocks. Text from hosts only ever becomes a text node.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [key, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "css") for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(9)) {
    if (child === undefined || child === null || child === false || child === "") continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}
const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
const svg = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

function seconds(s) {
  if (!s) return "0 s";
  if (s < 0.0995) return `${Math.max(1, Math.round(s * 1000))} ms`;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  const minutes = Math.floor(s / 60), rest = Math.round(s % 60);
  return minutes < 60 ? `${minutes} min ${rest} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function shown(value) {
  if (value === undefined || value === null) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  if (Array.isArray(value)) return value.map(shown).join(", ");
  if (typeof value === "object") return Object.entries(value).map(([k, v]) => `${k} ${shown(v)}`).join(", ");
  return String(value);
}

function when(utc) {
  if (!utc) return "";
  return new Date(utc * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC";
}

const badge = (word, kind) => h("span", { class: `badge is-${kind || word}` }, word);

// The one word for a host: its outcome, or "unhealthy" when only its proof is bad.
function word(host) {
  return (host.outcome === "ok" || host.outcome === "changed") && host.exit_code ? "unhealthy" : host.outcome;
}

// "skip" says that nothing is bad and something was not measured: what did run has passed.
function proofWord(host) {
  if (host.verdict !== "skip") return host.verdict;
  return host.checks.some((c) => c.verdict === "pass") ? "pass in part" : "skipped";
}
const SEVERITY = ["refused", "failed", "lost", "unreachable", "interrupted", "unhealthy", "changed", "ok"];
const VERDICTS = ["fail", "unknown", "warn", "skip", "pass"];
const PROOFS = ["fail", "unknown", "warn", "skipped", "pass in part", "pass"];

// gpu01, gpu02, gpu03 -> gpu[01-03]
function folded(names) {
  const runs = new Map();
  const order = [];
  for (const name of names) {
    const parts = /^(.*?)(\d+)([^\d]*)$/.exec(name);
    if (!parts) { order.push(name); continue; }
    const key = `${parts[1]}\u0000${parts[2].length}\u0000${parts[3]}`;
    if (!runs.has(key)) { runs.set(key, []); order.push({ key, before: parts[1], after: parts[3] }); }
    runs.get(key).push(parts[2]);
  }
  return order.map((entry) => {
    if (typeof entry === "string") return entry;
    const digits = runs.get(entry.key).sort();
    if (digits.length === 1) return entry.before + digits[0] + entry.after;
    const ranges = [];
    for (const d of digits) {
      const last = ranges[ranges.length - 1];
      if (last && Number(d) === Number(last[1]) + 1) last[1] = d;
      else ranges.push([d, d]);
    }
    return `${entry.before}[${ranges.map(([a, b]) => (a === b ? a : `${a}-${b}`)).join(",")}]${entry.after}`;
  }).join(", ");
}

function section(title, aside, ...children) {
  return h("section", {}, h("h2", {}, title, aside && h("small", {}, aside)), ...children);
}
