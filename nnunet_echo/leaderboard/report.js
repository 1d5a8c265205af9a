"use strict";
// Draws what the page's JSON holds. Charts are SVG, drawn anew for the width they get, so that text keeps its size.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const chart = (name) => document.querySelector(`[data-chart=${name}]`);
const known = (values) => values.filter((value) => value !== null);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const FONT = 12;

function make(tag, attributes = {}, children = []) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...[children].flat());
  return element;
}

function html(tag, properties = {}, children = []) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...[children].flat());
  return element;
}

const label = (x, y, text, attributes = {}) => make("text", { x, y, ...attributes }, String(text));
const short = (name, room) => (name.length * 6.6 <= room ? name : name.slice(0, Math.max(4, Math.floor(room / 6.6) - 1)) + "…");

function ticks(low, high, wanted) {
  const raw = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + step * 1e-6; k++) found.push(k * step);
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

// A frame with axes. `x`, `y`: {low, high, title}; without y there is one row a label.
function plot(figure, height, margin, x, y) {
  const width = Math.max(figure.clientWidth, 240);
  const inner = { left: margin.left, top: margin.top, right: width - margin.right, bottom: height - margin.bottom };
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const scale = (axis, from, to) => (value) => from + ((value - axis.low) / (axis.high - axis.low || 1)) * (to - from);
  const toX = scale(x, inner.left, inner.right), toY = y && scale(y, inner.bottom, inner.top);
  const columns = ticks(x.low, x.high, Math.max(2, (inner.right - inner.left) / 80));
  for (const value of x.plain ? [] : columns.values) {
    svg.append(make("line", { class: "grid", x1: toX(value), x2: toX(value), y1: inner.top, y2: inner.bottom }),
      label(toX(value), inner.bottom + 16, value.toFixed(columns.digits), { "text-anchor": "middle", class: "soft" }));
  }
  if (y) {
    const rows = ticks(y.low, y.high, 5);
    for (const value of rows.values) {
      svg.append(make("line", { class: "grid", x1: inner.left, x2: inner.right, y1: toY(value), y2: toY(value) }),
        label(inner.left - 6, toY(value) + 4, value.toFixed(rows.digits), { "text-anchor": "end", class: "soft" }));
    }
    svg.append(label(inner.left, inner.top - 9, y.title, { class: "soft" }));
  }
  svg.append(make("line", { class: "axis", x1: inner.left, x2: inner.right, y1: inner.bottom, y2: inner.bottom }),
    label(inner.right, inner.bottom + 33, x.title, { "text-anchor": "end", class: "soft" }));
  figure.replaceChildren(svg);
  return { svg, toX, toY, inner, width };
}

function quantile(sorted, q) {
  const place = (sorted.length - 1) * q, below = Math.floor(place);
  return sorted[below] + (place - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}

// Box and strip of several groups of values, one row each: [{name, values, off}].
function boxes(figure, groups, title, better) {
  const wide = figure.clientWidth >= 520;
  const left = wide ? 12 + Math.min(170, Math.max(...groups.map((group) => group.name.length)) * 6.8) : 8;
  const row = wide ? 30 : 46, all = groups.flatMap((group) => group.values);
  if (!all.length) return figure.replaceChildren(html("p", { className: "note", textContent: "No values." }));
  const pad = (Math.max(...all) - Math.min(...all)) * 0.03 || 0.01;
  const axis = { low: Math.min(...all) - pad, high: Math.max(...all) + pad, title };
  const { svg, toX, inner } = plot(figure, groups.length * row + 46, { left, right: 12, top: 4, bottom: 42 }, axis);
  groups.forEach(({ name, values, off }, index) => {
    const y = inner.top + (index + 0.5) * row + (wide ? 0 : 8), sorted = [...values].sort((a, b) => a - b);
    const part = make("g", off ? { class: "off" } : {});
    part.append(wide ? label(left - 8, y + 4, short(name, left), { "text-anchor": "end" }) : label(left, y - 15, name));
    if (sorted.length) {
      const [q1, q2, q3] = [0.25, 0.5, 0.75].map((q) => quantile(sorted, q)), reach = 1.5 * (q3 - q1);
      const low = sorted.find((value) => value >= q1 - reach), high = sorted.findLast((value) => value <= q3 + reach);
      // The golden ratio spreads the dots of a strip evenly, whatever their number.
      const dots = sorted.map((value, k) => `M${toX(value).toFixed(1)} ${(y + (((k * 0.618) % 1) - 0.5) * 15).toFixed(1)}h0`);
      part.append(
        make("line", { class: "axis", x1: toX(low), x2: toX(high), y1: y, y2: y }),
        make("rect", { class: "box", x: toX(q1), y: y - 9, width: Math.max(toX(q3) - toX(q1), 0.5), height: 18 }),
        make("path", { class: "dots", d: dots.join("") }),
        make("line", { class: "median", x1: toX(q2), x2: toX(q2), y1: y - 9, y2: y + 9 }),
        make("title", {}, `${name}: median ${q2.toFixed(3)}, quartiles ${q1.toFixed(3)} and ${q3.toFixed(3)}, ` +
          `${sorted.length} values`));
    }
    svg.append(part);
  });
  if (better) svg.append(label(inner.left, inner.bottom + 33, better, { class: "soft" }));
}

function drawRanks() {
  const figure = chart("ranks"), size = 30, names = data.models.map((model) => model.name);
  if (!figure) return;
  const left = 12 + Math.min(170, Math.max(...names.map((name) => name.length)) * 6.8, figure.clientWidth * 0.4);
  const count = data.ranks.length, width = figure.clientWidth;
  const step = Math.min(56, (width - left - 10) / count);
  const svg = make("svg", { viewBox: `0 0 ${width} ${count * size + 28}`, role: "img" });
  data.ranks.forEach((shares, row) => {
    svg.append(label(left - 8, row * size + 32, short(names[row], left), { "text-anchor": "end" }),
      label(left + (row + 0.5) * step, 12, row + 1, { "text-anchor": "middle", class: "soft" }));
    shares.forEach((share, rank) => share && svg.append(make("circle", { class: "point", cx: left + (rank + 0.5) * step,
      cy: row * size + 28, r: Math.sqrt(share) * Math.min(13, step / 2) }, make("title", {},
      `${names[row]}: rank ${rank + 1} in ${(100 * share).toFixed(1)} %`))));
  });
  figure.replaceChildren(svg);
}

function drawStructures() {
  const metric = data.metrics[byId("metric").value];
  data.structures.forEach((structure, place) => {
    const figure = byId("structures").children[place];
    const groups = data.models.map(({ name, whole }, model) =>
      ({ name, values: known(metric.values[place][model]), off: !whole }));
    boxes(figure.lastChild, groups, metric.name, metric.better ? "more is better" : "less is better");
  });
}

const model = () => Number(byId("model").value);

function drawEjectionFraction() {
  const [scatter, bland] = [chart("scatter"), chart("bland")];
  if (!scatter) return;
  const pairs = data.ef[model()].filter(([, reference, prediction]) => reference !== null && prediction !== null);
  if (!pairs.length) {
    for (const figure of [scatter, bland]) figure.replaceChildren(html("p", { className: "note", textContent: "No ejection fraction." }));
    return;
  }
  const margin = { left: 44, right: 14, top: 24, bottom: 42 };
  const values = pairs.flatMap(([, reference, prediction]) => [reference, prediction]);
  const range = { low: Math.min(...values) - 3, high: Math.max(...values) + 3 };
  const dot = (at, x, y, text) => at.svg.append(make("circle", { class: "point", cx: at.toX(x), cy: at.toY(y), r: 4 },
    make("title", {}, text)));
  let at = plot(scatter, Math.min(scatter.clientWidth, 380), margin, { ...range, title: "reference EF, %" },
    { ...range, title: "predicted EF, %" });
  at.svg.append(make("line", { class: "axis", x1: at.toX(range.low), y1: at.toY(range.low), x2: at.toX(range.high), y2: at.toY(range.high) }));
  for (const [patient, x, y] of pairs) dot(at, x, y, `${patient}: reference ${x} %, prediction ${y} %`);

  const errors = pairs.map(([, x, y]) => y - x), bias = mean(errors);
  const sd = Math.sqrt(errors.reduce((sum, error) => sum + (error - bias) ** 2, 0) / (errors.length - 1)) || 0;
  const ends = [bias - 1.96 * sd, bias + 1.96 * sd], reach = [...errors, ...ends, 0];
  at = plot(bland, Math.min(bland.clientWidth, 380), { ...margin, right: 104 }, { low: Math.min(...pairs.map(([, x, y]) => (x + y) / 2)) - 2,
    high: Math.max(...pairs.map(([, x, y]) => (x + y) / 2)) + 2, title: "mean of both, %" },
    { low: Math.min(...reach) - 2, high: Math.max(...reach) + 2, title: "prediction − reference, points" });
  at.svg.append(make("line", { class: "axis", x1: at.inner.left, x2: at.inner.right, y1: at.toY(0), y2: at.toY(0) }));
  for (const [value, name, kind] of [[bias, "bias", "mean"], [ends[0], "−1.96 sd", "limit"], [ends[1], "+1.96 sd", "limit"]]) {
    at.svg.append(make("line", { class: kind, x1: at.inner.left, x2: at.inner.right, y1: at.toY(value), y2: at.toY(value) }),
      label(at.inner.right + 6, at.toY(value) + 4, `${name} ${value.toFixed(1)}`));
  }
  for (const [patient, x, y] of pairs) dot(at, (x + y) / 2, y - x, `${patient}: error ${(y - x).toFixed(1)} points`);
}

function drawQuality() {
  const figure = chart("quality"), grades = new Set(["Good", "Medium", "Poor", ...data.quality]), groups = [];
  if (!data.quality.some((grade) => grade)) {
    return figure.replaceChildren(html("p", { className: "note", textContent: "The table of the dataset (cases.csv) has no image quality." }));
  }
  for (const grade of grades) {
    const values = known(data.scores[model()].filter((_, index) => data.quality[index] === grade));
    if (values.length) groups.push({ name: grade || "not known", values });
  }
  boxes(figure, groups, "mean Dice of a frame", "");
}

// Outlines as SVG paths in the pixels of the image, reference dashed.
function outlines(svg, picture, which) {
  svg.setAttribute("viewBox", `0 0 ${picture.width} ${picture.height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const paths = [];
  for (const [kind, of] of [["prediction", picture.models[which]], ["reference", picture.reference]]) {
    if (!of || !byId(kind).checked) continue;
    for (const [structure, d] of Object.entries(of)) {
      paths.push(make("path", { class: `outline ${kind}`, d, stroke: data.colours[structure] }));
    }
  }
  svg.replaceChildren(...paths);
}

function drawGallery() {
  if (!byId("gallery")) return;
  const groups = Object.entries(data.gallery[model()]).filter(([, cases]) => cases.length);
  byId("gallery").replaceChildren(...groups.map(([group, cases]) => html("div", {}, [html("h4", { textContent: group }),
    html("div", { className: "pictures" }, cases.map((name) => {
      const picture = data.pictures[name], svg = make("svg");
      outlines(svg, picture, model());
      const frame = html("div", { className: "frame" }, [html("img", { src: picture.source, alt: `ultrasound image of ${name}` }), svg]);
      frame.style.aspectRatio = picture.aspect;
      const score = data.scores[model()][data.cases.indexOf(name)];
      return html("figure", {}, [frame, html("figcaption", {}, [html("b", { textContent: `Dice ${score.toFixed(3)}` }), ` ${name}`])]);
    }))])));
}

const cine = { images: [], timer: 0, curve: null };

function loadClip() {
  const clip = data.clips[byId("clip").value];
  cine.images = clip.cases.map((name) => Object.assign(new Image(), { src: data.pictures[name].source, onload: drawFrame }));
  byId("time").max = clip.cases.length - 1;
  byId("time").value = 0;
  byId("cine").style.aspectRatio = data.pictures[clip.cases[0]].aspect;
  drawClip();
}

function drawClip() {
  if (!data.clips.length) return;
  const clip = data.clips[byId("clip").value], figure = chart("area");
  const curves = [["reference", clip.reference], ["prediction", clip.models[model()]]];
  const all = known(curves.flatMap(([, values]) => values));
  const at = plot(figure, 250, { left: 58, right: 14, top: 24, bottom: 42 }, { low: 0, high: clip.cases.length - 1, title: "frame" },
    { low: Math.min(...all) * 0.95, high: Math.max(...all) * 1.05, title: `LV area, ${data.unit}²` });
  for (const [kind, values] of curves) {
    const d = values.map((value, index) => value === null ? "" :
      `${index && values[index - 1] !== null ? "L" : "M"}${at.toX(index).toFixed(1)} ${at.toY(value).toFixed(1)}`).join("");
    at.svg.append(make("path", { class: "line", d, stroke: kind === "reference" ? "#1b1f24" : "#D55E00",
      "stroke-dasharray": kind === "reference" ? "5 4" : "none" }));
  }
  at.svg.append(label(at.inner.right, 14, "– – reference   — prediction", { "text-anchor": "end", class: "soft" }));
  cine.curve = { at, line: at.svg.appendChild(make("line", { class: "median", y1: at.inner.top, y2: at.inner.bottom })) };
  drawFrame();
}

function drawFrame() {
  const index = Number(byId("time").value), image = cine.images[index], [canvas, svg] = byId("cine").children;
  if (image?.complete && image.naturalWidth) {
    Object.assign(canvas, { width: image.naturalWidth, height: image.naturalHeight });
    canvas.getContext("2d").drawImage(image, 0, 0);
  }
  outlines(svg, data.pictures[data.clips[byId("clip").value].cases[index]], model());
  const x = cine.curve.at.toX(index);
  cine.curve.line.setAttribute("x1", x);
  cine.curve.line.setAttribute("x2", x);
}

function play(on) {
  clearInterval(cine.timer);
  const button = byId("play"), time = byId("time");
  button.setAttribute("aria-pressed", on);
  button.textContent = on ? "Pause" : "Play";
  if (on) {
    cine.timer = setInterval(() => {
      time.value = (Number(time.value) + 1) % (Number(time.max) + 1);
      drawFrame();
    }, 1000 / byId("speed").value);
  }
}

function sortBy(header, table) {
  const column = [...header.parentNode.children].indexOf(header), up = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentNode.children) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => {
    const cell = row.children[column];
    return cell.tagName === "TH" ? cell.textContent : cell.dataset.value === undefined || cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const order = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b) * (up ? 1 : -1);
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  // What is unknown stays at the end, whichever way.
  rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : order(a, b)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function drawModel() {
  drawEjectionFraction();
  drawQuality();
  drawGallery();
  if (data.clips.length) drawClip();
}

function drawAll() {
  if (!data.models.length) return;
  drawRanks();
  drawStructures();
  drawModel();
}

function start() {
  const board = document.querySelector(".board");
  for (const header of board.querySelectorAll("th[aria-sort]")) header.firstChild.addEventListener("click", () => sortBy(header, board));
  if (!data.models.length) return;
  const options = (names) => names.map((name, value) => html("option", { value, textContent: name }));
  byId("metric").append(...options(data.metrics.map((metric) => metric.name)));
  byId("model").append(...options(data.models.map(({ name, whole }) => name + (whole ? "" : " (incomplete)"))));
  byId("structures").append(...data.structures.map((name) => html("div", {}, [html("h3", { textContent: name }), html("figure")])));
  byId("metric").addEventListener("change", drawStructures);
  byId("model").addEventListener("change", drawModel);
  if (byId("gallery")) {
    byId("key").append(...Object.entries(data.colours).map(([name, colour]) => {
      const line = html("i");
      line.style.borderColor = colour;
      return html("span", {}, [line, ` ${name}`]);
    }));
    for (const kind of ["reference", "prediction"]) byId(kind).addEventListener("change", drawModel);
  }
  if (data.clips.length) {
    byId("clip").append(...options(data.clips.map((clip) => clip.name)));
    byId("clip").addEventListener("change", loadClip);
    byId("time").addEventListener("input", drawFrame);
    byId("play").addEventListener("click", () => play(byId("play").getAttribute("aria-pressed") === "false"));
    byId("speed").addEventListener("change", () => play(true));
    loadClip();
  }
  drawAll();
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawAll(); } });
}

start();
