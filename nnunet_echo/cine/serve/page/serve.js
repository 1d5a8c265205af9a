"use strict";
// Sends clips to the server that this page is from, tells how far they are, and shows the report. Texts are set as
// text, never as HTML. The name of a file stays in this page.

const byId = (id) => document.getElementById(id);
const places = [...document.querySelectorAll(".clip")].map((box) => ({
  box, drop: box.querySelector(".drop"), what: box.querySelector(".what"), input: box.querySelector("input"),
  view: box.querySelector("select"), remove: box.querySelector(".remove"), file: null,
}));
const empty = places[0].what.textContent;
let limits = null, job = null, timer = 0, said = "";

const size = (bytes) => bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB`;

function show(section) {
  for (const id of ["study", "work", "result"]) byId(id).hidden = id !== section;
}

function tell(text) {  // to a screen reader, and only what is new
  if (text !== said) byId("told").textContent = said = text;
}

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

function take(place, file) {
  place.file = file;
  place.what.textContent = file ? `${file.name}, ${size(file.size)}` : empty;
  place.drop.classList.toggle("full", Boolean(file));
  place.remove.hidden = !file;
  if (!file) place.input.value = "";
  trouble("");
}

function dropped(place, transfer) {
  const entry = transfer.items[0]?.webkitGetAsEntry?.();
  if (entry?.isDirectory) return trouble("That is a folder. For a folder of pictures, use the command nnunet-echo cine.");
  if (transfer.files.length > 1 && place === places[0] && transfer.files.length === 2) {
    return places.forEach((each, k) => take(each, transfer.files[k]));
  }
  if (transfer.files.length !== 1) return trouble("Drop one clip, or the two views of one study.");
  place.input.value = "";
  take(place, transfer.files[0]);
}

for (const place of places) {
  place.input.addEventListener("change", () => take(place, place.input.files[0] ?? null));
  place.remove.addEventListener("click", () => { take(place, null); place.input.focus(); });
  let inside = 0;
  const mark = (step) => place.drop.classList.toggle("over", (inside = Math.max(0, inside + step)) > 0);
  place.drop.addEventListener("dragenter", () => mark(1));
  place.drop.addEventListener("dragleave", () => mark(-1));
  place.drop.addEventListener("drop", (event) => { mark(-inside); dropped(place, event.dataTransfer); });
}
// A clip that is dropped beside its place must not be opened by the browser.
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", redirect: "error", ...options });
  } catch {
    throw new Error("The program does not answer. It may have been ended: start nnunet-echo serve again.");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  throw Object.assign(new Error(text || `The program refused that (${answer.status}).`), { status: answer.status });
}

function number(id, name) {
  const text = byId(id).value.trim().replace(",", ".");
  if (!text) return null;
  const value = Number(text);
  if (!(value > 0 && Number.isFinite(value))) throw new Error(`${name}: must be a number above 0.`);
  return value;
}

function ending(file) {
  const name = file.name.toLowerCase();
  if (name.endsWith(".mhd")) throw new Error("An .mhd has its pixels in a second file. Save the clip as .mha.");
  return limits.endings.filter((each) => name.endsWith(each)).sort((a, b) => b.length - a.length)[0] ?? "";
}

function wanted() {
  const given = places.filter((place) => place.file);
  if (!places[0].file) throw new Error(given.length ? "Give a single clip in the first place." : "Give a clip first.");
  for (const { file } of given) {
    if (file.size > limits.bytes) {
      throw new Error(`A clip has ${size(file.size)}, and at most ${size(limits.bytes)} are taken. Start with a larger --limit.`);
    }
  }
  const views = given.map((place) => place.view.value);
  if (given.length === 2 && (views[0] === views[1] || views.includes(""))) {
    throw new Error("Two clips are the two views of one study: choose 4CH for one, 2CH for the other.");
  }
  const [rows, columns] = [number("rows", "Pixel height"), number("columns", "Pixel width")];
  if ((rows === null) !== (columns === null)) throw new Error("Pixel size: height and width are needed. Give both.");
  return {
    given,
    content: {
      sizes: given.map(({ file }) => file.size), endings: given.map(({ file }) => ending(file)), views,
      spacing: rows === null ? null : [rows, columns], fps: number("fps", "Frames per second"),
      region: number("region", "Region"), smooth: byId("smooth").checked,
    },
  };
}

async function measure() {
  trouble("");
  limits ??= await (await ask("limits")).json();
  const { given, content } = wanted();
  const announced = await ask("jobs", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content),
  });
  job = (await announced.json()).job;
  const mine = job;
  working("Copying the clip", 0, 0);
  byId("working").focus();
  for (const [k, { file }] of given.entries()) {
    const options = { method: "PUT", headers: { "Content-Type": "application/octet-stream" }, body: file };
    await ask(`jobs/${mine}/clips/${k + 1}`, options);
    if (job !== mine) return;
  }
  history.replaceState(null, "", `#${mine}`);  // so that the result is found after a reload
  follow();
}

function working(text, done, total) {
  show("work");
  byId("working").textContent = text;
  byId("count").textContent = total ? `Frame ${done} of ${total}` : "";
  if (total) byId("bar").value = done / total; else byId("bar").removeAttribute("value");
  tell(total ? `${text}, ${10 * Math.floor(10 * done / total)} %` : text);
}

async function follow() {
  clearTimeout(timer);
  const mine = job;
  let now;
  try {
    now = await (await ask(`jobs/${mine}`)).json();
  } catch (error) {
    if (mine === job) back(error.status === 404 ? "That result is not there any more." : error.message);
    return;
  }
  if (mine !== job) return;
  if (now.state === "done") return done(now);
  if (now.state === "failed") {
    ask(`jobs/${mine}`, { method: "DELETE" }).catch(() => {});
    return back(now.text.replace(/\bclip_([12])(\.[a-z.]+)?/g, (_, k) => `Clip ${k}`));
  }
  if (now.state === "waiting") working(`Waiting for ${now.ahead === 1 ? "another study" : `${now.ahead} other studies`}`, 0, 0);
  else if (!now.total) working("Reading the clip", 0, 0);
  else if (now.done < now.total) working("Outlining the heart", now.done, now.total);
  else working("Measuring beats and writing the report", 0, 0);
  timer = setTimeout(follow, 250);
}

function done(now) {
  const frame = document.createElement("iframe");
  frame.title = "Report";
  frame.setAttribute("sandbox", "allow-scripts");
  frame.src = byId("alone").href = `jobs/${job}/report.html`;
  byId("report").replaceChildren(frame);
  byId("archive").href = `jobs/${job}/result.zip`;
  byId("refused").hidden = !now.refused;
  show("result");
  tell(now.refused ? "The report is ready. Some numbers are not shown." : "The report is ready.");
  byId("finished").focus();
}

function back(text = "") {
  clearTimeout(timer);
  job = null;
  history.replaceState(null, "", location.pathname);
  byId("report").replaceChildren();
  show("study");
  trouble(text);
  if (!text) tell("");
  byId("measure").focus();
}

function giveUp() {
  if (job) ask(`jobs/${job}`, { method: "DELETE" }).catch(() => {});
}

byId("study").addEventListener("submit", (event) => {
  event.preventDefault();
  measure().catch((error) => {
    if (!byId("work").hidden || !byId("study").hidden) { giveUp(); back(error.message); }
  });
});
byId("cancel").addEventListener("click", () => { giveUp(); back(); tell("Cancelled."); });
byId("again").addEventListener("click", () => {
  giveUp();
  for (const place of places) take(place, null);
  back();
});

if (/^#[0-9a-f]{16}$/.test(location.hash)) {
  job = location.hash.slice(1);
  working("Looking for the result", 0, 0);
  follow();
}
