// Loss curves: one line per host, drawn as SVG.
function series(check) {
  return Object.entries(check.data || {}).filter(
    ([, v]) => Array.isArray(v) && v.length > 2 && v.every((n) => typeof n === "number" || n === null || n === "nan" || n === "inf")
  );
}

// lines: [{name, values, bad}]; one shared scale; logarithmic when values span more than two decades.
function chart(lines, options) {
  const width = 560, height = 220, left = 58, right = 12, top = 12, bottom = 30;
  const all = lines.flatMap((l) => l.values).filter((v) => typeof v === "number");
  if (!all.length) return h("p", { class: "quiet" }, "no finite values");
  let low = Math.min(...range(all)), high = Math.max(...range(all));
  const log = low > 0 && high / low > 100;
  if (high === low) { high += Math.abs(high) * 0.05 || 1; low -= Math.abs(low) * 0.05 || 1; }
  const scale = log ? Math.log10 : (v) => v;
  const longest = lines.reduce((n, l) => Math.max(n, l.values.length), 0);
  const x = (i, count) => left + ((width - left - right) * i) / Math.max(1, count - 1);
  const y = (v) => top + ((height - top - bottom) * (scale(high) - scale(v))) / (scale(high) - scale(low) || 1);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": options.label });
  for (const tick of ticks(low, high, log)) {
    root.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
    root.append(svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, shown(Number(tick.toPrecision(3)))));
  }
  const last = options.count || longest;
  for (const [at, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
    const label = Math.max(1, Math.round(at * last));
    root.append(svg("text", { x: left + (width - left - right) * at, y: height - 8, "text-anchor": anchor }, at === 0.5 ? `${options.step} ${label}` : label));
  }
  const ordered = [...lines].sort((a, b) => Number(Boolean(a.bad)) - Number(Boolean(b.bad)));
  for (const line of ordered) {
    root.append(svg("path", { class: line.bad ? "line bad" : "line", d: path(line.values, x, y) }, svg("title", {}, line.name)));
  }
  root.style.setProperty("--many", lines.length > 40 ? "0.25" : lines.length > 8 ? "0.5" : "1");
  return root;
}

function range(values) {
  // Math.min(...values) would overflow the stack for 400 hosts
  let low = Infinity, high = -Infinity;
  for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
  return [low, high];
}

function ticks(low, high, log) {
  if (log) {
    const found = [];
    const each = Math.max(1, Math.ceil(Math.log10(high / low) / 5));
    for (let e = Math.ceil(Math.log10(low)); e <= Math.log10(high); e += each) found.push(10 ** e);
    return found.length > 1 ? found : [low, high];
  }
  const raw = (high - low) / 4;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * unit).find((f) => f >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(v);
  return found;
}

function path(values, x, y) {
  let text = "", pen = "M";
  values.forEach((v, i) => {
    if (typeof v !== "number") { pen = "M"; return; }
    text += `${pen}${x(i, values.length).toFixed(1)} ${y(v).toFixed(1)}`;
    pen = "L";
  });
  return text;
}

// A training's losses hang on one of its checks ("linear.replay"): they belong to the training.
const seriesTitle = (name, key) => (key === "losses" ? `${name.split(".")[0]}: loss` : `${name}: ${key.replace(/_/g, " ")}`);
const axis = (check, key) => ({ step: /step|batch/.test(key) ? "step" : "epoch", count: check.data.epochs });
