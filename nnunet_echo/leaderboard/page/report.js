"use strict";
// Draws what the page's JSON holds, and lets a reader sort, choose and play.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const chart = (name) => document.querySelector(`[data-chart=${name}]`);
const known = (values) => values.filter((value) => value !== null);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function drawRanks() {
  const figure = chart("ranks"), size = 30, names = data.models.map((model) => model.name);
  if (!figure) return;
  const width = Math.max(figure.clientWidth, 240), count = data.ranks.length;  // a page that is not seen yet has none
  const left = 12 + Math.min(170, most(names.map((name) => name.length)) * 6.8, width * 0.4);
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
    const groups = data.models.map(({ name, complete }, model) =>
      ({ name, values: known(metric.values[place][model]), off: !complete }));
    const figure = byId("structures").children[place].lastChild;
    boxes(figure, groups, metric.name, metric.better ? "more is better" : "less is better");
  });
}

const model = () => Number(byId("model").value);

const inside = (value, { low, high }) => Math.min(Math.max(value, low), high);

// Points {x, y, text} on axes {x: {low, high}, y: {low, high}}; what lies beyond is a triangle at the edge.
function dots(figure, at, points, axes) {
  let beyond = 0, flagged = 0;
  for (const { x, y, text, flags } of points) {
    const [cx, cy] = [at.toX(inside(x, axes.x)), at.toY(inside(y, axes.y))];
    const out = inside(x, axes.x) !== x || inside(y, axes.y) !== y;
    beyond += out;
    flagged += Boolean(flags);
    const shape = out ? { class: "beyond", d: `M${cx - 6} ${cy + 5}h12l-6 -10z` } : { class: "point", cx, cy, r: 4 };
    if (flags) shape.class += " flagged";
    at.svg.append(make(out ? "path" : "circle", shape, make("title", {}, flags ? `${text} (${flags})` : text)));
  }
  const caption = (textContent) => figure.append(html("figcaption", { className: "note", textContent }));
  if (beyond) caption(`▲ ${beyond} of ${points.length} beyond the axes, drawn at their edge`);
  if (flagged) caption(`○ ${flagged} of ${points.length} flagged: not to be trusted`);
}

// The ends of an axis that fits the values from `low` to `high`, with a margin: one far out squeezes no others.
function ends(values, [low, high], margin) {
  const fitting = values.filter((value) => value >= low && value <= high);
  return fitting.length ? { low: least(fitting) - margin, high: most(fitting) + margin } : { low, high };
}

function drawEjectionFraction() {
  const [scatter, bland] = [chart("scatter"), chart("bland")];
  if (!scatter) return;
  const pairs = data.ef[model()].filter(([, reference, prediction]) => reference !== null && prediction !== null);
  if (!pairs.length) return [scatter, bland].forEach((figure) => say(figure, "No ejection fraction."));
  const margin = { left: 44, right: 14, top: 24, bottom: 42 }, { value, error } = data.ef_shown;
  const range = ends(pairs.flatMap(([, reference, prediction]) => [reference, prediction]), value, 3);
  let at = plot(scatter, Math.min(scatter.clientWidth, 380), margin, { ...range, title: "reference EF, %" },
    { ...range, title: `predicted EF, %; ${pairs.length} of ${data.ef[model()].length} patients` });
  at.svg.append(make("line", { class: "axis", x1: at.toX(range.low), y1: at.toY(range.low), x2: at.toX(range.high),
    y2: at.toY(range.high) }));
  dots(scatter, at, pairs.map(([patient, x, y, flags]) => ({ x, y, flags, text: `${patient}: reference ${x} %, prediction ${y} %` })),
    { x: range, y: range });

  const errors = pairs.map(([, x, y]) => y - x), bias = mean(errors);
  const sd = Math.sqrt(errors.reduce((sum, error) => sum + (error - bias) ** 2, 0) / (errors.length - 1)) || 0;
  const limits = [[bias + 1.96 * sd, "+1.96 sd", "limit"], [bias, "bias", "mean"], [bias - 1.96 * sd, "−1.96 sd", "limit"]];
  const reach = ends([...errors, ...limits.map(([place]) => place), 0], error, 2);
  const middle = ends(pairs.map(([, x, y]) => (x + y) / 2), value, 2);
  at = plot(bland, Math.min(bland.clientWidth, 380), { ...margin, right: 104 },
    { ...middle, title: "mean of both, %" },
    { ...reach, title: "prediction − reference, points" });
  const across = (y, kind) => at.svg.append(make("line", { class: kind, x1: at.inner.left, x2: at.inner.right,
    y1: at.toY(y), y2: at.toY(y) }));
  across(0, "axis");
  let above = -Infinity;  // the label before: the next is at least a line below
  for (const [place, name, kind] of limits) {
    const seen = place >= reach.low && place <= reach.high;
    if (seen) across(place, kind);
    above = Math.max(at.toY(inside(place, reach)) + 4, above + 14);
    at.svg.append(label(at.inner.right + 6, above, `${name} ${place.toFixed(1)}${seen ? "" : place > 0 ? " ↑" : " ↓"}`));
  }
  dots(bland, at, pairs.map(([patient, x, y, flags]) => ({ x: (x + y) / 2, y: y - x, flags,
    text: `${patient}: error ${(y - x).toFixed(1)} points` })), { x: middle, y: reach });
}

function drawQuality() {
  const figure = chart("quality"), grades = new Set(["Good", "Medium", "Poor", ...data.quality]), groups = [];
  if (!data.quality.some(Boolean)) return say(figure, "The table of the dataset (cases.csv) has no image quality.");
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
  svg.replaceChildren();
  fill(svg, paths);
}

function drawGallery() {
  if (!byId("gallery")) return;
  const groups = Object.entries(data.gallery[model()]).filter(([, cases]) => cases.length);
  byId("gallery").replaceChildren();
  fill(byId("gallery"), groups.map(([group, cases]) => html("div", {}, [html("h4", { textContent: group }),
    html("div", { className: "pictures" }, cases.map((name) => {
      const picture = data.pictures[name], svg = make("svg");
      outlines(svg, picture, model());
      const image = html("img", { src: picture.source, alt: `ultrasound image of ${name}` });
      const frame = html("div", { className: "frame" }, [image, svg]);
      frame.style.aspectRatio = picture.aspect;
      const score = data.scores[model()][data.cases.indexOf(name)];
      const caption = html("figcaption", {}, [html("b", { textContent: `Dice ${score.toFixed(3)}` }), ` ${name}`]);
      return html("figure", {}, [frame, caption]);
    }))])));
}

const cine = { images: [], timer: 0, curve: null };

function loadClip() {
  const clip = data.clips[byId("clip").value];
  cine.images = clip.cases.map((name) =>
    Object.assign(new Image(), { onload: drawFrame, src: data.pictures[name].source }));
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
  const at = plot(figure, 250, { left: 58, right: 14, top: 24, bottom: 42 },
    { low: 0, high: clip.cases.length - 1, title: "frame" },
    { low: least(all) * 0.95, high: most(all) * 1.05, title: `LV area, ${data.unit}²` });
  for (const [kind, values] of curves) {
    const step = (value, index) => value === null ? "" :
      `${index && values[index - 1] !== null ? "L" : "M"}${at.toX(index).toFixed(1)} ${at.toY(value).toFixed(1)}`;
    at.svg.append(make("path", { class: "line", d: values.map(step).join(""), stroke: kind === "reference" ? "#1b1f24" : "#D55E00",
      "stroke-dasharray": kind === "reference" ? "5 4" : "none" }));
  }
  const key = "– – reference   — prediction";
  at.svg.append(label(at.inner.right, 14, key, { "text-anchor": "end", class: "soft" }));
  const line = at.svg.appendChild(make("line", { class: "median", y1: at.inner.top, y2: at.inner.bottom }));
  cine.curve = { at, line };
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
    return cell.tagName === "TH" ? cell.textContent : cell.dataset.value ? Number(cell.dataset.value) : null;
  };
  const order = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b) * (up ? 1 : -1);
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  // What is unknown stays at the end, whichever way.
  rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : order(a, b)));
  fill(table.tBodies[0], rows.map(([, row]) => row));
}

function drawModel() {
  drawEjectionFraction();
  drawQuality();
  drawGallery();
  drawClip();
}

function drawAll() {
  drawRanks();
  drawStructures();
  drawModel();
}

function start() {
  const board = document.querySelector(".board");
  for (const header of board.querySelectorAll("th[aria-sort]")) {
    header.firstChild.addEventListener("click", () => sortBy(header, board));
  }
  if (!data.models.length) return;
  const options = (names) => names.map((name, value) => html("option", { value, textContent: name }));
  fill(byId("metric"), options(data.metrics.map((metric) => metric.name)));
  fill(byId("model"), options(data.models.map(({ name, complete }) => name + (complete ? "" : " (incomplete)"))));
  fill(byId("structures"), data.structures.map((name) =>
    html("div", {}, [html("h3", { textContent: name }), html("figure")])));
  byId("metric").addEventListener("change", drawStructures);
  byId("model").addEventListener("change", drawModel);
  if (byId("gallery")) {
    fill(byId("key"), Object.entries(data.colours).map(([name, colour]) => {
      const line = html("i");
      line.style.borderColor = colour;
      return html("span", {}, [line, ` ${name}`]);
    }));
    for (const kind of ["reference", "prediction"]) byId(kind).addEventListener("change", drawModel);
  }
  if (data.clips.length) {
    fill(byId("clip"), options(data.clips.map((clip) => clip.name)));
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
