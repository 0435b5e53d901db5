// The status page: asks for a picture every two seconds and shows it. Text of
// other people's gets into the page by textContent alone.
import { Rates } from "./rates.js";
import { draw, choose } from "./picture.js";
import { fill } from "./tables.js";
import { number, span } from "./words.js";

const interval = 2000;
const $ = (id) => document.getElementById(id);
const rates = new Rates();
let model = null; // of the newest picture
let failed = null; // when the first answer was missing

async function ask() {
  const response = await fetch("v1/picture", { cache: "no-store" });
  if (!response.ok) throw new Error(`status ${response.status}`);
  return response.json();
}

async function turn() {
  if (!document.hidden) {
    try {
      const picture = await ask();
      rates.add(picture);
      model = rates.model(picture);
      failed = null;
      show();
    } catch (err) {
      failed ??= new Date();
      silent(err);
    }
  }
  setTimeout(turn, interval);
}

function silent(err) {
  document.body.classList.add("silent");
  $("state").dataset.state = "silent";
  $("state").textContent = `no answer since ${failed.toLocaleTimeString()} (${err.message}): what is shown is old`;
}

function show() {
  document.body.classList.remove("silent");
  head();
  draw($("picture"), model, $("find").value.trim().toLowerCase(), $("shown"), $("detail"));
  fill({ vips: $("vips"), backends: $("backends"), groups: $("groups") }, model, $("find").value.trim().toLowerCase());
  document.body.dataset.ready = rates.length > 1 ? "rates" : "counts";
}

function head() {
  const p = model.picture;
  document.title = p.state === "ok" ? "slicelb" : "slicelb: degraded";
  $("state").dataset.state = p.state;
  $("state").textContent = p.state;
  $("state").title = `slicelb ${p.version}, up ${span((Date.now() - Date.parse(p.started)) / 1000)}`;
  const totals = [
    ["VIPs", p.vips.length + p.more_vips],
    ["backends up", `${p.up} of ${p.backends}`],
    ["groups", p.groups.length + p.more_groups],
    ["refused/s", number(model.refused)],
    ["calls/s", number(model.calls)],
  ];
  $("totals").replaceChildren(...totals.map(([name, value]) => {
    const div = document.createElement("div");
    const dt = document.createElement("dt");
    const dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    div.append(dt, dd);
    return div;
  }));
  trend();
  $("problems").hidden = p.problems.length === 0;
  $("problems").replaceChildren(...p.problems.map((text) => {
    const li = document.createElement("li");
    li.textContent = text;
    return li;
  }));
}

// trend is the calls of the last minutes as a line.
function trend() {
  const points = rates.trend;
  if (points.length < 2) return;
  const ns = "http://www.w3.org/2000/svg";
  let svg = $("trend").firstChild;
  if (!svg) {
    svg = document.createElementNS(ns, "svg");
    svg.setAttribute("viewBox", "0 0 150 40");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.append(document.createElementNS(ns, "path"), document.createElementNS(ns, "path"));
    svg.firstChild.setAttribute("class", "area");
    $("trend").append(svg);
  }
  const most = Math.max(...points, 1);
  const line = points.map((n, i) => `${(150 * i / (points.length - 1)).toFixed(1)} ${(38 - 34 * n / most).toFixed(1)}`).join("L");
  svg.lastChild.setAttribute("d", "M" + line);
  svg.firstChild.setAttribute("d", `M0 40L${line}L150 40Z`);
}

$("find").addEventListener("input", () => model && show());
window.addEventListener("chosen", () => show());
document.addEventListener("keydown", (e) => {
  if (e.key === "Escape" && model) {
    choose(null);
    show();
  }
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) rates.forget(); // the gap is no rate of now
});
new ResizeObserver(() => model && show()).observe($("picture"));
turn();
