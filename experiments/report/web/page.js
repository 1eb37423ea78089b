"use strict";
// What one does with the page: hide methods, filter and sort rows, switch axes and theme. Nothing is needed to read it.

const $ = (id) => document.getElementById(id);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const order = Object.keys(data.methods);
const quantities = Object.keys(data.quantities);
const state = {
  shown: new Set(order), column: 0, quantity: quantities.includes("dev") ? "dev" : quantities[0],
  along: "x", logx: false, logy: false,
};
let pointer = null; // of the curves as they are drawn now

// Charts

function drawAll() {
  if (!data.columns.length) return;
  drawChart();
  const here = (each) => each.column === state.column && state.shown.has(each.method);
  const cells = data.cells.filter(here);
  const bars = (id, key) => {
    const rows = cells.filter((c) => c[key]).map((c) => ({ method: c.method, value: c[key], text: short(c[key]) }));
    drawBars($(id).querySelector(".bars"), rows.sort((a, b) => a.value - b.value));
  };
  bars("memory", "memory");
  bars("steps", "step");
  if ($("reaches")) drawBars($("reaches").querySelector(".bars"), data.reaches.filter(here).map(reachRow).sort(byReach));
  for (const host of all(".strip")) {
    const column = Number(host.dataset.column), method = host.dataset.method;
    if (method === undefined) drawStripAxis(host, column);
    else drawStrip(host, data.cells.find((c) => c.method === method && c.column === column));
  }
  drawForest();
}

function drawChart() {
  pointer = drawCurves($("chart"), state);
  hideTip();
}

function reachRow(reach) {
  const never = reach.of - reach.reached.length;
  const cell = data.cells.find((c) => c.method === reach.method && c.column === reach.column);
  if (never === reach.of)
    return { method: reach.method, value: cell.passes || 0, text: `never, ${never} of ${reach.of}`, hollow: true };
  const mean = reach.reached.reduce((a, b) => a + b, 0) / reach.reached.length;
  const text = short(mean) + (never ? `, never: ${never} of ${reach.of}` : "");
  return { method: reach.method, value: mean, text, ticks: reach.reached };
}

function byReach(a, b) {
  return Boolean(a.hollow) - Boolean(b.hollow) || a.value - b.value;
}

function drawForest() {
  const rows = all("#differences tbody tr").filter((row) => !row.hidden);
  const ends = rows.flatMap((row) => [row.dataset.low, row.dataset.high, row.dataset.mean]).filter(Boolean).map(Number);
  const most = Math.min(Math.max(1, ...ends.map(Math.abs)), 3 * Math.max(1, ...rows.map((row) => Math.abs(row.dataset.mean))));
  for (const row of rows) {
    const host = row.querySelector(".forest"), width = Math.max(host.clientWidth, 90);
    const x = scale(-most, most, 6, width - 6), [mean, low, high] = ["mean", "low", "high"].map((key) => row.dataset[key]);
    const inside = (value) => x(Math.max(-most, Math.min(most, Number(value))));
    const root = svg("svg", { viewBox: `0 0 ${width} 14`, "aria-hidden": "true" });
    root.append(svg("line", { class: "base", x1: x(0), x2: x(0), y1: -6, y2: 20 }));
    const colour = data.methods[mean >= 0 ? row.dataset.method : row.dataset.other].colour;
    if (low) root.append(svg("line", { x1: inside(low), x2: inside(high), y1: 7, y2: 7, stroke: colour, "stroke-width": 2 }));
    root.append(svg("circle", { cx: inside(mean), cy: 7, r: 4, fill: colour }));
    host.replaceChildren(root);
  }
}

// What the pointer or the arrow keys are at

function showTip(stop, place) {
  if (!pointer) return;
  const at = pointer.x(stop), unit = pointer.along === "seconds" ? "s" : "forward passes";
  pointer.cursor.setAttribute("x1", at);
  pointer.cursor.setAttribute("x2", at);
  pointer.cursor.setAttribute("visibility", "visible");
  const found = pointer.curves
    .map((c) => ({ c, ...Object.fromEntries(["mean", "low", "high"].map((n) => [n, valueAt(c, c[state.along], stop, n)])) }))
    .filter((row) => row.mean !== null)
    .sort((a, b) => b.mean - a.mean);
  const table = document.createElement("table");
  for (const { c, mean, low, high } of found) {
    const row = table.insertRow(), picture = svg("svg", { class: "mark", viewBox: "0 0 12 12" }, mark(c.method, 6, 6, 12));
    row.insertCell().append(picture, c.method);
    row.insertCell().textContent = short(mean);
    row.insertCell().textContent = Math.max(...c.n) > 1 ? `${short(low)} to ${short(high)}` : "";
  }
  $("tip").replaceChildren(html("b", `${short(stop)} ${unit}`), table);
  $("tip").hidden = false;
  const frame = $("chart").getBoundingClientRect(), size = $("tip").getBoundingClientRect();
  const left = frame.left + (at / pointer.width) * frame.width;
  $("tip").style.left = `${left + size.width + 20 > innerWidth ? Math.max(4, left - size.width - 14) : left + 14}px`;
  $("tip").style.top = `${Math.max(4, Math.min(place ?? frame.top + 20, innerHeight - size.height - 8))}px`;
  document.querySelector(".readout").textContent =
    `${short(stop)} ${unit}: ` + found.map((row) => `${row.c.method} ${short(row.mean)}`).join(", ");
}

function hideTip() {
  $("tip").hidden = true;
  if (pointer) pointer.cursor.setAttribute("visibility", "hidden");
}

function nearest(event) {
  const frame = $("chart").getBoundingClientRect();
  const at = ((event.clientX - frame.left) / frame.width) * pointer.width;
  return pointer.stops.reduce((a, b) => (Math.abs(pointer.x(b) - at) < Math.abs(pointer.x(a) - at) ? b : a));
}

$("chart").addEventListener("pointermove", (event) => pointer && showTip(nearest(event), event.clientY + 14));
$("chart").addEventListener("pointerleave", hideTip);
$("chart").addEventListener("blur", hideTip);
let stop = 0;
$("chart").addEventListener("keydown", (event) => {
  const move = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
  if (event.key === "Escape") hideTip();
  if (!move || !pointer) return;
  event.preventDefault();
  stop = Math.max(0, Math.min(pointer.stops.length - 1, stop + ($("tip").hidden && Math.abs(move) === 1 ? 0 : move)));
  showTip(pointer.stops[stop]);
});

// Filters

function filter() {
  const words = $("find").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const [task, model] = [$("task").value, $("model").value];
  const chosen = (id) => ($(id) ? $(id).value : "");
  const [status, verdict, against] = ["status", "verdict", "against"].map(chosen);
  for (const row of all("main tbody tr")) {
    const own = row.dataset, matrix = row.closest(".matrix");
    const text = row.textContent.toLowerCase();
    const pair = own.other !== undefined;
    row.hidden =
      !state.shown.has(own.method) ||
      (pair && (!state.shown.has(own.other) || (against && own.method !== against && own.other !== against))) ||
      !words.every((word) => text.includes(word)) ||
      (!matrix && ((task && own.task !== task) || (model && own.model !== model))) ||
      (own.status !== undefined && status && own.status !== status) ||
      (own.verdict !== undefined && verdict && own.verdict !== verdict);
  }
  for (const cell of all(".matrix [data-task]"))
    cell.hidden = Boolean((task && cell.dataset.task !== task) || (model && cell.dataset.model !== model));
  for (const chip of all(".chip")) chip.setAttribute("aria-pressed", state.shown.has(chip.dataset.method));
  $("all").hidden = state.shown.size === order.length;
  drawAll();
}

/** So that each row reads "other − against": turns those round that read the other way. */
function turn() {
  const against = $("against").value;
  for (const row of all("#differences tbody tr")) {
    if (against && row.dataset.method === against) {
      const { method, other, mean, low, high } = row.dataset;
      Object.assign(row.dataset, { method: other, other: method, mean: -mean });
      if (low) Object.assign(row.dataset, { low: -high, high: -low });
      const [a, b] = all(".method", row), minus = document.createTextNode(" − ");
      row.querySelector(".pair").replaceChildren(b, minus, a);
      const sign = (x) => (Number(x) >= 0 ? "+" : "-") + Math.abs(x).toFixed(1);
      Object.assign(row.querySelector(".points"), { textContent: sign(row.dataset.mean) }).dataset.v = row.dataset.mean;
      if (low)
        Object.assign(row.querySelector(".interval"), {
          textContent: `${sign(row.dataset.low)} to ${sign(row.dataset.high)}`,
        }).dataset.v = row.dataset.low;
    }
  }
  filter();
}

for (const id of ["find", "task", "model", "status", "verdict"]) $(id)?.addEventListener("input", filter);
$("against")?.addEventListener("input", turn);
/** Dims every curve but one method's; all stand out again without a name. */
function standOut(method) {
  for (const series of all("#chart .series")) series.classList.toggle("dim", Boolean(method) && series.dataset.method !== method);
}

for (const chip of all(".chip")) {
  chip.addEventListener("pointerenter", () => standOut(chip.dataset.method));
  chip.addEventListener("pointerleave", () => standOut(""));
  chip.addEventListener("click", () => {
    const name = chip.dataset.method;
    if (!state.shown.delete(name)) state.shown.add(name);
    filter();
  });
}
$("all").addEventListener("click", () => {
  state.shown = new Set(order);
  filter();
});
for (const form of all("form")) form.addEventListener("submit", (event) => event.preventDefault());

// Sorting: numbers by data-v, the rest by text; what has no number comes last either way

function sort(table, head) {
  const index = [...head.parentNode.cells].indexOf(head);
  const falling = head.getAttribute("aria-sort") === "none" ? head.classList.contains("number") : head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentNode.cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const key = (row) => {
    const cell = row.cells[index];
    if (head.classList.contains("number")) return cell.dataset.v === undefined || cell.dataset.v === "" ? null : Number(cell.dataset.v);
    return cell.textContent.trim();
  };
  const rows = [...table.tBodies[0].rows].map((row, place) => ({ row, place, key: key(row) }));
  rows.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
    const by = typeof a.key === "number" ? a.key - b.key : a.key.localeCompare(b.key, "en", { numeric: true });
    return (falling ? -by : by) || a.place - b.place;
  });
  table.tBodies[0].append(...rows.map((each) => each.row));
}

for (const table of all("table.sortable"))
  for (const head of all("th[aria-sort]", table)) head.querySelector("button").addEventListener("click", () => sort(table, head));

// Choices of the chart, and the theme

for (const name of quantities) {
  const option = html("option", name === "dev" ? "metric on dev" : data.quantities[name]);
  option.value = name;
  $("quantity").append(option);
}
if (state.quantity) $("quantity").value = state.quantity;
$("quantity").addEventListener("input", () => ((state.quantity = $("quantity").value), drawChart()));
$("column").addEventListener("input", () => ((state.column = Number($("column").value)), drawAll()));
for (const id of ["logx", "logy"]) $(id).addEventListener("input", () => ((state[id] = $(id).checked), drawChart()));
for (const radio of all("[name=along]")) radio.addEventListener("input", () => ((state.along = radio.value), drawChart()));

const dark = matchMedia("(prefers-color-scheme: dark)");
$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
});

let width = 0;
new ResizeObserver(() => {
  if (document.body.clientWidth !== width) drawAll();
  width = document.body.clientWidth;
}).observe(document.body);
filter();
