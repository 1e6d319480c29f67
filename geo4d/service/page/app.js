// The page: a list of clips, and one clip with its plan, progress, pictures, space and downloads.

import { Problem, ask, follow, get, openSession, send } from "./api.js";
import { Films } from "./films.js";
import { Space } from "./space.js";

const $ = (id) => document.getElementById(id);
const STEPS = [
  ["waiting", []], ["reading", ["find shots"]], ["motion", ["track points", "find what moves"]], ["depth", ["predict"]],
  ["alignment", ["reading windows", "sample again", "align"]], ["maps", ["dense depth", "write"]], ["previews", ["preview"]],
];
const WORDS = { queued: "waiting", running: "working", done: "done", failed: "failed", cancelled: "cancelled" };

let about = null, shown = null, unfollow = () => {}, player = null;

// words --------------------------------------------------------------------------------------------------------------

const short = (number) => String(Number(number.toFixed(number < 10 ? 1 : 0)));

function size(bytes) {
  if (bytes >= 1e9) return `${short(bytes / 1e9)} GB`;
  return bytes >= 1e6 ? `${short(bytes / 1e6)} MB` : `${Math.max(1, Math.round(bytes / 1e3))} kB`;
}

function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${short(seconds / 3600)} h`;
}

const percent = (share) => (share === null || share === undefined ? "not known" : `${Math.round(100 * share)} %`);

function say(text, mild = false) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
  $("notice").classList.toggle("mild", mild);
}

function complain(error) {
  if (error instanceof Problem && error.status === 401) return askToken();
  if (error instanceof Problem && error.status === -1) return undefined;
  const later = error.retryAfter ? ` It may go in ${span(error.retryAfter)}.` : "";
  const text = error instanceof Problem ? error.message.replace(/\.?$/, ".") : String(error);
  say(text + later); // it may begin with the name of a file
  return undefined;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function facts(list, rows) {
  list.replaceChildren();
  for (const [name, text, kind] of rows) {
    if (text === null || text === undefined || text === "") continue;
    list.append(element("dt", "", name), element("dd", kind || "", text));
  }
}

// the token ----------------------------------------------------------------------------------------------------------

function askToken() {
  if (!$("token").open) $("token").showModal();
}

$("token").querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await openSession($("token-text").value);
    $("token").close();
    await begin();
  } catch (error) {
    $("token-wrong").textContent = error.message;
    $("token-wrong").hidden = false;
  }
});

// sending a clip -----------------------------------------------------------------------------------------------------

async function submit(part, value, name) {
  say("");
  if (part === "file" && value.size > about.limits.max_bytes) {
    return complain(new Problem(413, `this clip has ${size(value.size)}; expected at most ${size(about.limits.max_bytes)}`));
  }
  const form = new FormData();
  for (const field of $("options").querySelectorAll("input, select")) {
    if (!field.checkValidity()) { $("options").open = true; field.reportValidity(); return undefined; }
    if (field.value) form.append(field.name, field.value);
  }
  form.append(part, value);
  $("sending-name").textContent = name;
  $("sending").hidden = false;
  const sending = send(form, (share) => {
    $("sending-bar").value = share;
    $("sending-how").textContent = share < 1 ? `sending, ${percent(share)}` : "looking at the clip";
  });
  $("sending-stop").onclick = sending.stop;
  try {
    location.hash = `job=${(await sending.job).id}`;
  } catch (error) {
    complain(error);
  } finally {
    $("sending").hidden = true;
    $("file").value = "";
  }
  return undefined;
}

$("file").addEventListener("change", () => { const [file] = $("file").files; if (file) submit("file", file, file.name); });
$("fetch").addEventListener("click", () => { if ($("url").value) submit("url", $("url").value, $("url").value); });
$("start").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["dragover", "dragleave", "drop"]) {
  window.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    const file = name === "drop" && event.dataTransfer.files[0];
    if (file && about && !$("home").hidden) submit("file", file, file.name);
  });
}

// the list -----------------------------------------------------------------------------------------------------------

let listing = 0;

async function showList() {
  window.clearTimeout(listing);
  try {
    const { jobs } = await get("/api/jobs");
    if ($("home").hidden) return;
    $("jobs-title").hidden = !jobs.length;
    $("jobs").replaceChildren(...jobs.map(rowOf));
    listing = window.setTimeout(showList, jobs.some((job) => ["queued", "running"].includes(job.state)) ? 1500 : 8000);
  } catch (error) {
    complain(error);
    listing = window.setTimeout(showList, 8000);
  }
}

function rowOf(job) {
  const row = element("li"), link = element("a");
  link.href = `#job=${job.id}`;
  let picture = element("span", "thumb");
  if (job.state === "done") {
    picture = element("img", "thumb");
    picture.src = `/api/jobs/${job.id}/preview/thumb.jpg`;
    picture.alt = "";
  }
  const words = element("span");
  words.append(element("div", "name", job.name), element("div", "about", aboutJob(job)));
  link.append(picture, words, pillOf(job));
  row.append(link);
  return row;
}

function pillOf(job, pill = element("span")) {
  const doubtful = job.state === "done" && job.exit_code;
  pill.className = `pill ${doubtful ? "doubtful" : job.state}`;
  pill.textContent = doubtful ? "done, doubtful" : WORDS[job.state];
  return pill;
}

function aboutJob(job) {
  if (job.state === "queued") return job.place ? `number ${job.place} in the queue` : "begins at once";
  if (job.state === "running") return `${job.stage || "begins"}${job.total ? ` ${job.done} of ${job.total}` : ""}`;
  if (job.state === "failed") return job.reason;
  if (job.state === "cancelled") return "ended on request; its files are removed";
  const [width, height] = job.summary.size;
  return `${job.summary.frames} frames, ${width}×${height}, ${span(job.summary.seconds)} of work; ${goes(job)}`;
}

function goes(job) {
  return `removed in ${span(Math.max(job.removed_s - Date.now() / 1000, 0))}`;
}

// one clip -----------------------------------------------------------------------------------------------------------

function showJob(job) {
  if (!job) { say("This clip has been removed.", true); location.hash = ""; return; }
  const before = shown;
  shown = job;
  $("job-name").textContent = job.name;
  pillOf(job, $("job-state"));
  const ended = !["queued", "running"].includes(job.state);
  $("cancel").hidden = ended;
  $("delete").hidden = !ended;
  const reason = job.state === "cancelled" ? "Cancelled; its files are removed." : job.reason;
  $("job-reason").hidden = !reason;
  $("job-reason").textContent = reason;
  $("job-reason").classList.toggle("mild", job.state !== "failed");
  $("progress").hidden = ended;
  if (!ended) showProgress(job);
  showPlan(job);
  if (job.state === "done" && (before?.id !== job.id || before.state !== "done")) showResult(job);
}

function showProgress(job) {
  const now = job.state === "queued" ? 0 : Math.max(1, STEPS.findIndex(([, stages]) => stages.includes(job.stage)));
  $("steps").replaceChildren(...STEPS.map(([name], i) => element("li", i < now ? "past" : i === now ? "now" : "", name)));
  if (job.state === "running" && job.total) $("bar").value = job.done / job.total;
  else $("bar").removeAttribute("value");
  $("progress-words").textContent = job.state === "queued" ? queueWords(job) : workWords(job);
}

function queueWords(job) {
  if (!job.place) return "Begins at once.";
  return job.place > 1 ? `${job.place - 1} clips are before this one.` : "This clip is next.";
}

function workWords(job) {
  const spent = Date.now() / 1000 - job.started_s;
  const whole = job.plan?.seconds;
  const left = whole ? `; about ${span(Math.max(whole - spent, 1))} left` : "";
  const count = job.total ? `, ${job.done} of ${job.total}` : "";
  return `${job.stage || "begins"}${count}; ${span(spent)} so far${whole && spent > whole ? "" : left}`;
}

function showPlan(job) {
  const plan = job.plan;
  $("plan-card").hidden = !plan && job.state !== "queued";
  const licence = plan?.licence ?? about.model.licence, model = plan?.model ?? about.model.name;
  const rows = [["clip", `${size(job.num_bytes)}`], ["model", model], ["licence", `${licence} (of the model's weights)`]];
  if (plan) {
    const [width, height] = plan.source_size;
    rows.splice(0, 1, ["clip", `${plan.frames} frames, ${plan.duration_s.toFixed(1)} s, ${width}×${height}, ${size(job.num_bytes)}`],
      ["shots", plan.shots], ["windows", plan.windows]);
    rows.push(["maps", plan.map_size.join("×")], ["memory", `about ${size(plan.memory_bytes)}`],
      ["time", plan.seconds ? `about ${span(plan.seconds)}` : "not known for this model"], ["note", plan.notes.join("; ")]);
  }
  const options = Object.entries(job.options).map(([name, value]) => `${name} ${value}`).join(", ");
  facts($("plan"), [...rows, ["settings", options]]);
}

function showResult(job) {
  const result = job.summary, doubtful = result.problems.length > 0;
  $("result-card").hidden = false;
  facts($("result"), [
    ["verdict", doubtful ? `doubtful: ${result.problems.join("; ")}` : "usable", doubtful ? "bad" : "good"],
    ["remarks", [...result.remarks, ...job.warnings].join("; ")],
    ["frames", `${result.frames} of ${result.size.join("×")}, ${percent(result.reliable_share)} reliable`],
    ["confidence", `${percent(result.confidence_median)} in the middle: so sure that a depth is within 10 %`],
    ["lens", `${result.field_of_view_deg.toFixed(1)}° across`],
    ["cameras", result.has_cameras ? "yes, one for every frame" : "none: this model gives none"],
    ["scale", result.scale === "metric" ? "metres" : "one unknown factor; set Scale below to make it metres"],
    ["shots", result.scenes > 1 ? `${result.scenes}, each in a world of its own` : ""],
    ["work", span(result.seconds)],
    ["kept", goes(job)],
  ]);
  showDownloads(job);
  player = new Player(job);
  player.open().catch(complain);
}

// playing ------------------------------------------------------------------------------------------------------------

class Player {
  constructor(job) {
    this.base = `/api/jobs/${job.id}/preview`;
    this.frame = 0;
    this.playing = false;
    this.closed = false;
  }

  async open() {
    this.index = await get(`${this.base}/index.json`);
    if (this.closed) return;
    $("viewer").hidden = false;
    const last = this.index.times_s.length - 1;
    $("frame").max = last;
    $("frame").disabled = last === 0;
    this.films = new Films($("panels"), `${this.base}/frames.bin`, this.index);
    const canvas = $("space").querySelector("canvas"), fresh = canvas.cloneNode();
    canvas.replaceWith(fresh);
    this.space = new Space(fresh, `${this.base}/points.bin`, this.index);
    $("space-words").textContent = this.space.works ? "drag to turn, scroll or pinch" : "this browser has no WebGL";
    this.mark();
    press("view-orbit", true);
    press("view-camera", false);
    press("view-path", true);
    this.seek(0);
  }

  close() {
    this.closed = true;
    this.pause();
    this.space?.close();
    $("viewer").hidden = true;
  }

  // Frames that cannot be trusted, and cuts, above the slider.
  mark() {
    const canvas = $("marks"), reliable = this.index.reliable, count = reliable.length;
    canvas.width = 1000;
    const pen = canvas.getContext("2d");
    reliable.forEach((good, t) => {
      pen.fillStyle = good ? "#2b5c50" : "#f2b45c";
      pen.fillRect(1000 * t / count, 0, Math.max(1000 / count - (count < 300 ? 1 : 0), 1), 6);
      if (t && this.index.scene[t] !== this.index.scene[t - 1]) {
        pen.fillStyle = "#ffffff";
        pen.fillRect(1000 * t / count - 2, 0, 3, 6);
      }
    });
    canvas.title = reliable.every(Boolean) ? "all frames are reliable" : "amber: frames that cannot be trusted";
  }

  seek(frame) {
    const times = this.index.times_s;
    this.frame = Math.max(0, Math.min(times.length - 1, frame));
    $("frame").value = this.frame;
    const mark = this.index.reliable[this.frame] ? "" : " ⚠";
    $("clock").textContent = `frame ${this.index.source_frames[this.frame]} · ${(times[this.frame] - times[0]).toFixed(3)} s${mark}`;
    $("clock").title = "number in the clip, and time from the first frame";
    return Promise.all([this.films.show(this.frame), this.space.show(this.frame)]).catch((error) => { this.pause(); complain(error); });
  }

  play() {
    if (this.index.times_s.length < 2) return;
    this.playing = true;
    $("play").textContent = "❚❚";
    $("play").setAttribute("aria-label", "pause");
    this.step();
  }

  // From frame to frame at the times of the clip; a frame that comes late delays the next.
  async step() {
    const times = this.index.times_s, last = times.length - 1;
    while (this.playing) {
      const next = this.frame === last ? 0 : this.frame + 1;
      const wait = next ? times[next] - times[this.frame] : 0.4;
      await Promise.all([this.seek(next), new Promise((resolve) => window.setTimeout(resolve, 1000 * Math.min(wait, 2)))]);
    }
  }

  pause() {
    this.playing = false;
    $("play").textContent = "▶";
    $("play").setAttribute("aria-label", "play");
  }
}

function press(id, on) { $(id).setAttribute("aria-pressed", String(on)); }

function look(mode) {
  press("view-orbit", mode === "orbit");
  press("view-camera", mode === "camera");
  player?.space.setMode(mode);
}

$("view-orbit").onclick = () => look("orbit");
$("view-camera").onclick = () => look("camera");
$("view-path").onclick = () => { press("view-path", !player.space.showsPath); player.space.setPath(!player.space.showsPath); };
$("smaller").onclick = () => player?.space.scalePoints(1 / 1.3);
$("larger").onclick = () => player?.space.scalePoints(1.3);
$("play").onclick = () => (player.playing ? player.pause() : player.play());
$("back-one").onclick = () => { player.pause(); player.seek(player.frame - 1); };
$("on-one").onclick = () => { player.pause(); player.seek(player.frame + 1); };
$("frame").addEventListener("input", () => { player.pause(); player.seek(Number($("frame").value)); });
window.addEventListener("keydown", (event) => {
  if ($("viewer").hidden || event.target.closest("input:not([type=range]), select, button, dialog")) return;
  const acts = { " ": $("play").onclick, ArrowLeft: $("back-one").onclick, ArrowRight: $("on-one").onclick };
  if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
});

// downloads ----------------------------------------------------------------------------------------------------------

function showDownloads(job) {
  $("downloads").hidden = false;
  $("scene-choice").hidden = job.summary.scenes < 2;
  const shots = $("scene-choice").querySelector("select");
  shots.replaceChildren(...Array.from({ length: job.summary.scenes }, (_, i) => new Option(`shot ${i + 1}`, i)));
  $("formats").replaceChildren(...about.exports.map((format) => formatRow(job, format)));
}

function formatRow(job, format) {
  const row = element("li"), button = element("button", "", "Download");
  row.dataset.format = format.name;
  button.type = "button";
  button.setAttribute("aria-label", `download ${format.name}`);
  row.append(element("b", "", format.name), element("span", "holds", format.holds), button);
  button.addEventListener("click", () => download(job, format, row, button));
  return row;
}

function exportPath(job, format) {
  const query = new URLSearchParams();
  const plain = ["result", "report"].includes(format.name);
  for (const field of $("export-options").querySelectorAll("input, select")) {
    if (plain || !field.value || field.closest("[hidden]")) continue;
    query.set(field.name, field.value);
  }
  const text = query.toString();
  return `/api/jobs/${job.id}/exports/${encodeURIComponent(format.name)}${text ? `?${text}` : ""}`;
}

// Lets the service write the file, then lets the browser save it.
async function download(job, format, row, button) {
  row.querySelector(".wrong")?.remove();
  button.disabled = true;
  button.textContent = "Preparing…";
  try {
    const path = exportPath(job, format);
    let made = await ask("POST", path);
    while (made.state === "working") {
      await new Promise((resolve) => window.setTimeout(resolve, 500));
      made = await ask("POST", path);
    }
    const link = element("a");
    link.href = path;
    link.download = made.file_name;
    document.body.append(link);
    link.click();
    link.remove();
    row.querySelector(".holds").textContent = `${format.holds} · ${made.file_name}, ${size(made.num_bytes)}`;
  } catch (error) {
    if (error.status === 401) askToken();
    row.append(element("span", "wrong", error.message));
  } finally {
    button.disabled = false;
    button.textContent = "Download";
  }
}

$("cancel").onclick = async () => {
  try { showJob(await ask("POST", `/api/jobs/${shown.id}/cancel`)); } catch (error) { complain(error); }
};
$("delete").onclick = async () => {
  if (!window.confirm(`Remove ${shown.name} and everything made of it?`)) return;
  try { await ask("DELETE", `/api/jobs/${shown.id}`); location.hash = ""; } catch (error) { complain(error); }
};

// where we are -------------------------------------------------------------------------------------------------------

function leave() {
  unfollow();
  unfollow = () => {};
  player?.close();
  player = null;
  shown = null;
  for (const id of ["viewer", "result-card", "plan-card", "downloads", "progress"]) $(id).hidden = true;
}

async function go() {
  if (!about) return;
  leave();
  const id = new URLSearchParams(location.hash.slice(1)).get("job");
  $("home").hidden = Boolean(id);
  $("job").hidden = !id;
  if (!id) { document.title = "geo4d"; await showList(); return; }
  say("");
  try {
    showJob(await get(`/api/jobs/${id}`));
    document.title = `${shown.name} · geo4d`;
    window.scrollTo(0, 0);
    if (["queued", "running"].includes(shown.state)) unfollow = follow(id, (job) => { if (!job || job.id === shown?.id) showJob(job); });
  } catch (error) {
    $("home").hidden = false;
    $("job").hidden = true;
    complain(error);
    showList();
  }
}

function showAbout() {
  const { model, limits } = about;
  $("model").hidden = false;
  $("model").replaceChildren("model ", element("b", "", model.name), ` · licence ${model.licence} · ${model.device}`);
  $("model").title = model.description;
  $("version").textContent = `geo4d ${about.version}`;
  $("limits").textContent = `up to ${size(limits.max_bytes)} and ${limits.max_frames} frames; removed ${span(limits.keep_s)} after the end`;
  $("by-address").hidden = !about.fetches;
  $("examples").hidden = !about.examples.length;
  $("example-list").replaceChildren(...about.examples.map((example) => {
    const row = element("div", "row"), button = element("button", "main", "Try it");
    button.type = "button";
    button.addEventListener("click", () => submit("example", example.name, example.title));
    row.append(element("span", "dim", example.title), button);
    return row;
  }));
}

async function begin() {
  try {
    about = await get("/api/about");
    await get("/api/jobs"); // shows early that a token is needed
  } catch (error) {
    $("home").hidden = false;
    complain(error);
    return;
  }
  showAbout();
  await go();
}

window.addEventListener("hashchange", go);
begin();
