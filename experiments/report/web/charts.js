"use strict";
// Charts as SVG from the numbers in #data. Text is only ever set as text. One colour, marker and dash a method.

const data = JSON.parse(document.getElementById("data").textContent);

/** An SVG element with attributes and children (elements or text). */
function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** An HTML element with text. */
function html(tag, text, className = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  if (className) node.className = className;
  return node;
}

/** A number for people: three digits, thousands with commas, powers of ten where it is tiny. */
function short(value) {
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString("en");
  if (size > 0 && size < 1e-3) return value.toExponential(1).replaceAll("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

/** Round numbers from low to high, about `count` of them; powers of ten (with 2 and 5 where they are few) on a log scale. */
function ticks(low, high, count, log) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const digit of [1, 2, 5]) found.push(digit * 10 ** power);
    const inside = found.filter((x) => x >= low * 0.999 && x <= high * 1.001);
    const tens = inside.filter((x) => Math.abs(Math.log10(x) % 1) < 1e-9);
    return inside.length > count + 2 && tens.length > 1 ? tens : inside;
  }
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((digit) => digit * power >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

/** A function from [low, high] to [from, to]. */
function scale(low, high, from, to, log = false) {
  const at = log ? Math.log : (x) => x;
  const width = at(high) - at(low) || 1;
  return (x) => from + ((at(x) - at(low)) / width) * (to - from);
}

/** A method's marker at a point. */
function mark(method, x, y, size = 9) {
  return svg("use", {
    href: `#mark-${data.methods[method].marker}`, x: x - size / 2, y: y - size / 2, width: size, height: size,
    color: data.methods[method].colour, class: "mark-at",
  });
}

/** Heights that keep their order and are `gap` apart, near where they were; mutates and returns the labels. */
function apart(labels, gap, low, high) {
  labels.sort((a, b) => a.y - b.y);
  for (let i = 1; i < labels.length; i++) labels[i].y = Math.max(labels[i].y, labels[i - 1].y + gap);
  const over = labels.length ? labels[labels.length - 1].y - high : 0;
  if (over > 0) {
    labels[labels.length - 1].y -= over;
    for (let i = labels.length - 2; i >= 0; i--) labels[i].y = Math.min(labels[i].y, labels[i + 1].y - gap);
  }
  return labels;
}

/** The value of a curve at x, on the line between its points; null outside. `name` is mean, low or high. */
function valueAt(curve, xs, x, name) {
  if (x < xs[0] || x > xs[xs.length - 1]) return null;
  const right = xs.findIndex((other) => other >= x);
  if (right === 0 || xs[right] === x) return curve[name][right];
  const share = (x - xs[right - 1]) / (xs[right] - xs[right - 1]);
  return curve[name][right - 1] + share * (curve[name][right] - curve[name][right - 1]);
}

/** Curves with bands into host. state: {column, quantity, along, logx, logy, shown}. Returns what the pointer needs. */
function drawCurves(host, state) {
  host.replaceChildren();
  const column = data.columns[state.column];
  const all = data.curves.filter((c) => c.column === state.column && c.quantity === state.quantity);
  const positive = (values) => values.every((x) => x > 0);
  const logx = state.logx && all.every((c) => positive(c[state.along]));
  const logy = state.logy && all.every((c) => positive(c.low));
  const curves = all.filter((c) => state.shown.has(c.method));
  if (!curves.length) {
    host.append(html("p", all.length ? "Every method is hidden." : "No run has a row of this yet.", "empty"));
    return null;
  }
  const width = Math.max(host.clientWidth, 280), height = width < 560 ? 300 : 400;
  const names = width >= 560;
  const box = { left: 46, right: width - (names ? 104 : 12), top: 12, bottom: height - 42 };
  const xs = curves.flatMap((c) => c[state.along]);
  const ys = curves.flatMap((c) => [...c.low, ...c.high]);
  const bases = state.quantity === "dev" ? [["majority", column.baselines.majority]].filter((b) => b[1] !== undefined) : [];
  let [bottom, top] = [Math.min(...ys, ...bases.map((b) => b[1])), Math.max(...ys, ...bases.map((b) => b[1]))];
  const room = logy ? 0 : (top - bottom || Math.abs(top) || 1) * 0.05;
  bottom -= room;
  top += room;
  const right = Math.max(...xs);
  const left = logx ? Math.min(...xs) : 0;
  const x = scale(left, right, box.left, box.right, logx);
  const y = scale(bottom, top, box.bottom, box.top, logy);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
  for (const tick of ticks(bottom, top, 6, logy)) {
    root.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }));
    root.append(svg("text", { x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
  }
  for (const tick of ticks(left, right, width < 560 ? 4 : 8, logx)) {
    root.append(svg("line", { class: "axis", x1: x(tick), x2: x(tick), y1: box.bottom, y2: box.bottom + 4 }));
    root.append(svg("text", { x: x(tick), y: box.bottom + 18, "text-anchor": "middle" }, short(tick)));
  }
  root.append(svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  const along = state.along === "x" ? "forward passes" : "seconds";
  root.append(svg("text", { x: box.right, y: height - 6, "text-anchor": "end" }, along));
  const quantity = state.quantity === "dev" ? `${column.metric} on dev, %` : data.quantities[state.quantity];
  root.append(svg("text", { x: box.left + 6, y: box.top + 2, class: "halo" }, quantity));
  for (const [name, value] of bases) {
    root.append(svg("line", { class: "base", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }));
    root.append(svg("text", { x: box.left + 6, y: y(value) - 4, class: "halo" }, name));
  }
  const points = (curve, name) => curve[name].map((value, i) => `${x(curve[state.along][i]).toFixed(1)},${y(value).toFixed(1)}`);
  const series = (method) => root.appendChild(svg("g", { class: "series", "data-method": method }));
  for (const curve of curves.filter((c) => Math.max(...c.n) > 1))
    series(curve.method).append(svg("path", {
      d: `M${points(curve, "low").join("L")}L${points(curve, "high").reverse().join("L")}Z`,
      fill: data.methods[curve.method].colour, opacity: 0.07, class: "band",
    }));
  const labels = [];
  const covered = (curve, i) => curves.slice(i + 1).some((c) => points(c, "mean").join() === points(curve, "mean").join());
  for (const [i, curve] of curves.entries()) {
    const look = data.methods[curve.method], group = series(curve.method);
    group.append(svg("path", {
      d: `M${points(curve, "mean").join("L")}`, fill: "none", stroke: look.colour, "stroke-width": covered(curve, i) ? 7 : 2,
      "stroke-linejoin": "round", "stroke-linecap": look.dash ? "butt" : "round", "stroke-dasharray": look.dash || "none",
      class: "curve",
    }));
    const last = curve.mean.length - 1;
    if (last < 40) curve.mean.forEach((value, i) => group.append(mark(curve.method, x(curve[state.along][i]), y(value))));
    labels.push({ method: curve.method, x: x(curve[state.along][last]), y: y(curve.mean[last]) });
  }
  if (names)
    for (const label of apart(labels, 15, box.top, box.bottom)) {
      const text = svg("text", { class: "name", x: box.right + 26, y: label.y + 4 }, label.method);
      series(label.method).append(mark(label.method, box.right + 16, label.y), text);
    }
  const cursor = svg("line", { class: "cursor", y1: box.top, y2: box.bottom, visibility: "hidden" });
  root.append(cursor);
  host.append(root);
  return { curves, x, box, cursor, width, along, stops: [...new Set(xs)].sort((a, b) => a - b) };
}

/** Horizontal bars. rows: {method, value, text, ticks, hollow}. */
function drawBars(host, rows) {
  host.replaceChildren();
  if (!rows.length) {
    host.append(html("p", "Nothing to show.", "empty"));
    return;
  }
  const width = Math.max(host.clientWidth, 220), line = 25, left = 24 + 7.6 * Math.max(...rows.map((r) => r.method.length));
  const words = 7 * Math.max(...rows.map((r) => r.text.length)) + 10;
  const x = scale(0, Math.max(...rows.flatMap((r) => [r.value, ...(r.ticks || [])])), left, Math.max(width - words, left + 30));
  const root = svg("svg", { viewBox: `0 0 ${width} ${rows.length * line}`, height: rows.length * line, role: "img" });
  rows.forEach((row, i) => {
    const y = i * line, colour = data.methods[row.method].colour;
    root.append(mark(row.method, 6, y + line / 2), svg("text", { class: "name", x: 16, y: y + line / 2 + 4 }, row.method));
    const bar = { x: left, y: y + 5, width: Math.max(x(row.value) - left, 1), height: line - 10, rx: 2, class: "column", "data-method": row.method };
    root.append(svg("rect", row.hollow ? { ...bar, fill: "none", stroke: colour, "stroke-dasharray": "3 3" } : { ...bar, fill: colour }));
    for (const tick of row.ticks || [])
      root.append(svg("line", { x1: x(tick), x2: x(tick), y1: y + 2, y2: y + line - 2, stroke: "var(--ink)", "stroke-width": 1.5 }));
    const end = Math.max(row.value, ...(row.ticks || []));
    root.append(svg("text", { x: x(end) + 7, y: y + line / 2 + 4 }, row.text));
  });
  host.append(root);
}

/** The scale of a column's strips: from the lowest to the highest of its seeds, deviations and the majority. */
function stripScale(column, width) {
  const base = data.columns[column].baselines.majority;
  const ends = base === undefined ? [] : [base];
  for (const c of data.cells.filter((c) => c.column === column && c.mean !== null))
    ends.push(...c.values, c.mean - (c.deviation || 0), c.mean + (c.deviation || 0));
  return { base, low: Math.min(...ends), high: Math.max(...ends), x: scale(Math.min(...ends), Math.max(...ends), 5, width - 5) };
}

/** Seeds as dots, mean and deviation as a bar, the majority as a dotted line. */
function drawStrip(host, cell) {
  const width = Math.max(host.clientWidth, 60), { base, x } = stripScale(cell.column, width);
  const root = svg("svg", { viewBox: `0 0 ${width} 16`, "aria-hidden": "true" }), colour = data.methods[cell.method].colour;
  root.append(svg("line", { class: "grid", x1: 0, x2: width, y1: 8, y2: 8 }));
  if (base !== undefined) root.append(svg("line", { class: "base", x1: x(base), x2: x(base), y1: -4, y2: 20 }));
  if (cell.deviation)
    root.append(svg("line", {
      x1: x(cell.mean - cell.deviation), x2: x(cell.mean + cell.deviation), y1: 8, y2: 8,
      stroke: colour, "stroke-width": 5, "stroke-linecap": "round", opacity: 0.3,
    }));
  for (const value of cell.values) root.append(svg("circle", { cx: x(value), cy: 8, r: 2.4, fill: colour, opacity: 0.75 }));
  root.append(mark(cell.method, x(cell.mean), 8, 12));
  host.replaceChildren(root);
}

/** Numbers over a column's strips. */
function drawStripAxis(host, column) {
  const width = Math.max(host.clientWidth, 60), { base, low, high, x } = stripScale(column, width);
  host.replaceChildren();
  if (!(low < high)) return;
  const root = svg("svg", { viewBox: `0 0 ${width} 14`, "aria-hidden": "true" });
  const wide = width > 240;
  for (const tick of ticks(low, high, wide ? 6 : 2).filter((t) => base === undefined || !wide || Math.abs(x(t) - x(base)) > 50))
    root.append(svg("text", { x: x(tick), y: 11, "text-anchor": "middle" }, short(tick)));
  if (base !== undefined && wide) root.append(svg("text", { x: Math.min(Math.max(x(base), 24), width - 24), y: 11, "text-anchor": "middle" }, "majority"));
  host.append(root);
}
