"use strict";
// Plays each loop, and keeps picture, outlines, slider and the mark on the curve at the same frame.

const data = JSON.parse(document.getElementById("data").textContent);
const names = { lv_area: "LV area", lv_volume: "LV volume", la_area: "LA area" };
const units = { mm2: "mm²", px2: "pixels", ml: "mL", px3: "cubic pixels" };

const title = (column) => {
  const cut = column.lastIndexOf("_");
  return `${names[column.slice(0, cut)]}, ${units[column.slice(cut + 1)]}`;
};

function showLoop(section, loop) {
  const one = (selector) => section.querySelector(selector);
  const box = one(".frame"), [canvas, svg] = box.children, slider = one("input[type=range]"), figure = one("figure");
  const frames = loop.frames, brush = canvas.getContext("2d");
  const at = (frame) => loop.times ? loop.times[frame] : frame + 1;
  let place = 0, mark = null, chart = null, timer = 0;
  box.style.aspectRatio = loop.aspect;
  box.style.maxWidth = `calc(72vh * ${loop.aspect})`;
  slider.max = frames.length - 1;
  svg.setAttribute("viewBox", `0 0 ${loop.width} ${loop.height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const lines = Object.entries(data.colours).map(([name, stroke]) => {
    const line = make("path", { class: "outline", stroke });
    svg.append(line);
    const mark = html("i");
    mark.style.borderColor = stroke;
    one(".key").append(html("span", {}, [mark, ` ${name} `]));
    return [name, line];
  });
  const pictures = loop.pictures.map((source) => Object.assign(new Image(), { src: source }));

  function draw() {
    const picture = pictures[place], frame = frames[place];
    if (picture.complete && picture.naturalWidth) {
      [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
      brush.drawImage(picture, 0, 0);
    } else {
      picture.addEventListener("load", draw, { once: true });
    }
    for (const [name, line] of lines) {
      line.setAttribute("d", one(".outlines").checked ? loop.outlines[place][name] ?? "" : "");
    }
    slider.value = place;
    one(".place").textContent = `Frame ${frame + 1} of ${loop.count}` +
      (loop.times ? `, ${loop.times[frame].toFixed(3)} s` : "");
    if (mark) for (const end of ["x1", "x2"]) mark.setAttribute(end, chart.toX(at(frame)));
  }

  function path(values) {
    let pen = "M";
    return values.map((value, k) => {
      if (value === null) { pen = "M"; return ""; }
      const step = `${pen}${chart.toX(at(k)).toFixed(1)} ${chart.toY(value).toFixed(1)}`;
      pen = "L";
      return step;
    }).join("");
  }

  function drawCurve() {
    const column = one(".curve").value, values = loop.curves[column], plain = loop.unsmoothed[column];
    const known = [...(values ?? []), ...(plain ?? [])].filter((value) => value !== null);
    mark = null;
    if (!known.length) return say(figure, "No curve.");
    const low = least(known), high = most(known), room = (high - low) * 0.12 || 1;
    const x = { low: at(0), high: at(loop.count - 1), title: loop.times ? "time, s" : "frame" };
    chart = plot(figure, 300, { left: 52, right: 12, top: 26, bottom: 42 }, x,
      { low: low - room, high: high + room, title: title(column) });
    if (plain) chart.svg.append(make("path", { class: "plain", d: path(plain) }));
    chart.svg.append(make("path", { class: "curve", d: path(values) }));
    for (const [ed, es, next, doubt] of loop.beats) {
      for (const [frame, kind] of [[ed, "ed"], [es, "es"], ...(next === null ? [] : [[next, "ed"]])]) {
        if (values[frame] === null) continue;
        chart.svg.append(make("circle", { class: doubt ? "doubt" : kind, cx: chart.toX(at(frame)),
          cy: chart.toY(values[frame]), r: 4.5 }, make("title", {}, `${kind.toUpperCase()}, frame ${frame + 1}`)));
      }
    }
    mark = make("line", { class: "now", y1: chart.inner.top, y2: chart.inner.bottom });
    chart.svg.append(mark);
    chart.svg.addEventListener("click", (event) => {
      const area = chart.svg.getBoundingClientRect(), { left, right } = chart.inner;
      const share = ((event.clientX - area.left) / area.width * chart.svg.viewBox.baseVal.width - left) / (right - left);
      const wanted = x.low + share * (x.high - x.low);
      const far = frames.map((frame) => Math.abs(at(frame) - wanted));
      go(far.indexOf(least(far)));
    });
    draw();
  }

  function go(next) {
    place = Math.max(0, Math.min(frames.length - 1, next));
    draw();
  }

  // Each frame is shown as long as it took; without times, 25 a second.
  function wait() {
    const next = place + 1 < frames.length ? place + 1 : 0;
    const seconds = !loop.times ? 0.04 : next ? loop.times[frames[next]] - loop.times[frames[place]] : 0.1;
    timer = setTimeout(() => { go(next); wait(); }, 1000 * seconds / Number(one(".speed").value));
  }

  function play(on) {
    clearTimeout(timer);
    one(".play").setAttribute("aria-pressed", on);
    one(".play").textContent = on ? "Pause" : "Play";
    if (on) wait();
  }

  fill(one(".curve"), Object.keys(loop.curves).map((value) => html("option", { value, textContent: title(value) })));
  one(".curve").addEventListener("change", drawCurve);
  one(".outlines").addEventListener("change", draw);
  slider.addEventListener("input", () => { play(false); go(Number(slider.value)); });
  one(".play").addEventListener("click", () => play(one(".play").getAttribute("aria-pressed") === "false"));
  addEventListener("resize", drawCurve);
  drawCurve();
  draw();
}

document.querySelectorAll("[data-loop]").forEach((section) => showLoop(section, data.loops[section.dataset.loop]));
