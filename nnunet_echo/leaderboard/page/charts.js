"use strict";
// SVG charts, drawn for the width that their figure has, so that text keeps its size.

function make(tag, attributes = {}, children = []) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return fill(element, children);
}

function html(tag, properties = {}, children = []) {
  return fill(Object.assign(document.createElement(tag), properties), children);
}

// An array of any length is never spread into the arguments of a call: these have to fit the stack.
function fill(element, children) {
  for (const child of [children].flat()) element.append(child);
  return element;
}

const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

const label = (x, y, text, attributes = {}) => make("text", { x, y, ...attributes }, String(text));
// A letter takes about 6.6 pixels.
const short = (name, room) => name.length * 6.6 <= room ? name : `${name.slice(0, Math.max(4, room / 6.6 - 1))}…`;

const say = (figure, text) => figure.replaceChildren(html("p", { className: "note", textContent: text }));

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
  for (const value of columns.values) {
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
  return { svg, toX, toY, inner };
}

function quantile(sorted, q) {
  const place = (sorted.length - 1) * q, below = Math.floor(place);
  return sorted[below] + (place - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}

// Box and strip of several groups of values, one row each: [{name, values, off}].
function boxes(figure, groups, title, better) {
  const wide = figure.clientWidth >= 520;
  const left = wide ? 12 + Math.min(170, most(groups.map((group) => group.name.length)) * 6.8) : 8;
  const row = wide ? 30 : 46, all = groups.flatMap((group) => group.values);
  if (!all.length) return say(figure, "No values.");
  const pad = (most(all) - least(all)) * 0.03 || 0.01;
  const axis = { low: least(all) - pad, high: most(all) + pad, title };
  const { svg, toX, inner } = plot(figure, groups.length * row + 46, { left, right: 12, top: 4, bottom: 42 }, axis);
  groups.forEach(({ name, values, off }, index) => {
    const y = inner.top + (index + 0.5) * row + (wide ? 0 : 8), sorted = [...values].sort((a, b) => a - b);
    const part = make("g", off ? { class: "off" } : {});
    part.append(wide ? label(left - 8, y + 4, short(name, left), { "text-anchor": "end" })
      : label(left, y - 15, name));
    if (sorted.length) {
      const [q1, q2, q3] = [0.25, 0.5, 0.75].map((q) => quantile(sorted, q)), reach = 1.5 * (q3 - q1);
      const low = sorted.find((value) => value >= q1 - reach), high = sorted.findLast((value) => value <= q3 + reach);
      // The golden ratio spreads the dots of a strip evenly, whatever their number.
      const height = (k) => y + (((k * 0.618) % 1) - 0.5) * 15;
      const dots = sorted.map((value, k) => `M${toX(value).toFixed(1)} ${height(k).toFixed(1)}h0`);
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
