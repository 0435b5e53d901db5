// The picture: groups on the left, VIPs in the middle, backends on the right,
// calls as edges between them. Elements stay from one picture to the next, so
// that focus and movement do.
import { number } from "./words.js";
import { matches, state, check } from "./tables.js";

const ns = "http://www.w3.org/2000/svg";
const mostVIPs = 24, mostBackends = 6, mostEdges = 8;
const kept = new Map(); // elements by key
let svg, edges, nodes;
let chosen = null; // key of the node that is looked at
let tabStop = null; // key of the node that Tab goes to
let cells = []; // nodes of the newest layout, by column

export function choose(key) { chosen = key; }

export function draw(root, model, find, shown, detail) {
  if (!svg) begin(root);
  const scene = select(model, find);
  const width = Math.max(300, root.clientWidth);
  const height = layout(scene, width);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.setAttribute("class", width < 620 ? "small" : "");
  shown.textContent = scene.text;
  paint(scene);
  light(scene);
  explain(detail, scene);
}

// select takes what there is room for: what is wrong first, then the busiest.
function select(model, find) {
  const trouble = (v) => (v.state === "active" ? 0 : 1);
  const busy = (v) => v.rate?.calls ?? v.counters.connects + v.counters.flows;
  const callers = new Map(model.vips.map((v) => [v.name, model.edges.filter((e) => e.vip === v.name)]));
  const found = model.vips.filter((v) => matches(find, v.name, ...v.frontends, ...v.all.map((b) => b.address), ...callers.get(v.name).map((e) => e.group)));
  const rank = [...found].sort((a, b) => trouble(b) - trouble(a) || busy(b) - busy(a) || a.name.localeCompare(b.name));
  const names = new Set(rank.slice(0, mostVIPs).map((v) => v.name));
  if (chosen?.startsWith("v ") && found.some((v) => `v ${v.name}` === chosen)) names.add(chosen.slice(2));
  const vips = model.vips.filter((v) => names.has(v.name));
  const scene = { vips: [], groups: [], backends: [], edges: [], text: "" };
  const total = model.vips.length + model.picture.more_vips;
  if (total === 0) scene.text = "No VIP is configured.";
  else if (found.length === 0) scene.text = model.picture.more_vips ? `None of the ${model.vips.length} VIPs that the page has has that in its name; slicelb vip list has all ${total}.` : "Nothing has that in its name.";
  else if (vips.length < total) scene.text = `${vips.length} of ${total} VIPs: what is not well first, then the busiest. Find others by name; ${model.picture.more_vips ? `the page has ${model.vips.length}, chosen in the same way` : "the tables have all"}.`;

  const groups = new Map(model.groups.map((g) => [g.name, g]));
  const used = new Set();
  for (const v of vips) {
    const vip = { kind: "vip", key: `v ${v.name}`, it: v, in: [], out: [] };
    scene.vips.push(vip);
    const rated = (e) => (e.rate?.calls ?? 0) + (e.rate?.refused ?? 0);
    const into = callers.get(v.name).sort((a, b) => rated(b) - rated(a));
    for (const e of into.slice(0, mostEdges)) {
      if (!groups.has(e.group)) continue;
      used.add(e.group);
      const edge = { key: `e ${e.group} ${v.name}`, to: vip, group: e.group, rate: e.rate, side: "in" };
      vip.in.push(edge);
      scene.edges.push(edge);
    }
    const rest = v.all.length - mostBackends;
    const list = rest > 1 ? [...v.all].sort((a, b) => (a.state === "active") - (b.state === "active") || (b.rate?.calls ?? 0) - (a.rate?.calls ?? 0)).slice(0, mostBackends - 1) : v.all;
    for (const b of list) {
      const node = { kind: "backend", key: `b ${b.key}`, it: b };
      const edge = { key: `o ${b.key}`, from: vip, to: node, rate: b.rate, side: "out", state: b.state };
      vip.out.push(node);
      node.edge = edge;
      scene.backends.push(node);
      scene.edges.push(edge);
    }
    if (list.length < v.all.length) {
      const more = { kind: "more", key: `m ${v.name}`, it: { state: "active", text: `and ${v.all.length - list.length} more` } };
      vip.out.push(more);
      scene.backends.push(more);
    }
  }
  for (const g of model.groups) {
    if (!used.has(g.name) && (find !== "" || g.host || vips.length < total)) continue;
    scene.groups.push({ kind: "group", key: `g ${g.name}`, it: g, out: [] });
  }
  const byName = new Map(scene.groups.map((g) => [g.it.name, g]));
  for (const e of scene.edges) {
    if (e.side !== "in") continue;
    e.from = byName.get(e.group);
    e.from.out.push(e);
  }
  return scene;
}

// layout places the VIPs below each other, their backends beside them, and each
// group where its VIPs are in the mean. It returns the height.
function layout(scene, width) {
  const small = width < 620;
  const pad = small ? 8 : 22;
  const w = small ? [0.225, 0.24, 0.3].map((f) => f * width) : width < 900 ? [140, 170, 210] : [180, 220, 262];
  const gap = (width - 2 * pad - w[0] - w[1] - w[2]) / 2;
  const x = [pad, pad + w[0] + gap, pad + w[0] + gap + w[1] + gap];
  const row = small ? 36 : 46, port = small ? 15 : 18, least = small ? 46 : 58;
  let y = pad;
  for (const v of scene.vips) {
    const own = Math.max(least, v.in.length * port + 12);
    const beside = v.out.length * row - 6;
    const tall = Math.max(own, beside);
    Object.assign(v, { x: x[1], y: y + (tall - own) / 2, w: w[1], h: own, small });
    let by = y + (tall - beside) / 2;
    for (const b of v.out) {
      Object.assign(b, { x: x[2], y: by, w: w[2], h: row - 6, small });
      by += row;
    }
    y += tall + (small ? 16 : 22);
  }
  const h = small ? 40 : 50;
  const weight = (e) => 1 + Math.log2(1 + (e.rate?.calls ?? 0));
  const middle = (g) => g.out.reduce((s, e) => s + (e.to.y + e.to.h / 2) * weight(e), 0) / g.out.reduce((s, e) => s + weight(e), 0);
  const order = scene.groups.map((g) => ({ g, want: g.out.length ? middle(g) - h / 2 : Infinity })).sort((a, b) => a.want - b.want);
  const between = small ? 14 : 24;
  let free = pad;
  for (const { g, want } of order) {
    const tall = Math.max(h, g.out.length * 7 + 10);
    const top = Math.max(free, want === Infinity ? free : want);
    Object.assign(g, { x: x[0], y: top, w: w[0], h: tall, small });
    free = top + tall + between;
  }
  // What hangs over at the bottom goes up as far as there is room.
  let limit = Math.max(y - (small ? 16 : 22), 0);
  const need = order.reduce((s, { g }) => s + g.h + between, -between) + pad;
  limit = Math.max(limit, need);
  for (const { g } of order.reverse()) {
    g.y = Math.min(g.y, limit - g.h);
    limit = g.y - between;
  }
  order.reverse();
  for (const { g } of order) {
    g.out.sort((a, b) => a.to.y - b.to.y);
    g.out.forEach((e, i) => { e.x1 = g.x + g.w; e.y1 = g.y + (g.h * (i + 1)) / (g.out.length + 1); });
  }
  for (const v of scene.vips) {
    v.in.sort((a, b) => a.from.y - b.from.y);
    v.in.forEach((e, i) => { e.small = small; e.x2 = v.x; e.y2 = v.y + v.h / 2 + (i - (v.in.length - 1) / 2) * port; });
    const list = v.out.filter((b) => b.edge);
    list.forEach((b, i) => {
      Object.assign(b.edge, { small, x1: v.x + v.w, y1: v.y + v.h / 2 + (i - (list.length - 1) / 2) * Math.min(8, (v.h - 14) / list.length), x2: b.x, y2: b.y + b.h / 2 });
    });
  }
  cells = [order.map((o) => o.g), scene.vips, scene.backends.filter((b) => b.kind === "backend")];
  const bottom = Math.max(y - (small ? 16 : 22), ...scene.groups.map((g) => g.y + g.h), 60);
  return Math.ceil(bottom + pad);
}

function begin(root) {
  svg = make("svg");
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-label", "Groups, VIPs and backends. Arrow keys move, Enter shows more.");
  edges = make("g");
  nodes = make("g");
  svg.append(edges, nodes);
  root.append(svg);
  svg.addEventListener("keydown", keys);
}

function make(name, kind) {
  const el = document.createElementNS(ns, name);
  if (kind) el.setAttribute("class", kind);
  return el;
}

// element is the one behind a key, made by build at its first use.
function element(key, parent, build) {
  let el = kept.get(key);
  if (!el) {
    el = build();
    el.dataset.key = key;
    kept.set(key, el);
    parent.append(el);
  }
  el.seen = true;
  return el;
}

function paint(scene) {
  for (const el of kept.values()) el.seen = false;
  for (const e of scene.edges) paintEdge(e);
  const all = cells.flat();
  for (const n of [...scene.groups, ...scene.vips, ...scene.backends]) paintNode(n);
  for (const [key, el] of kept) {
    if (el.seen) continue;
    el.remove();
    kept.delete(key);
  }
  if (!all.some((n) => n.key === tabStop)) tabStop = all[0]?.key ?? null;
  for (const n of all) kept.get(n.key).setAttribute("tabindex", n.key === tabStop ? "0" : "-1");
}

function paintEdge(e) {
  const el = element(e.key, edges, () => {
    const g = make("g");
    g.append(make("path"), make("path", "flow"), make("text"));
    return g;
  });
  const calls = e.rate?.calls ?? 0, refused = e.rate?.refused ?? 0;
  const kind = calls > 0 ? "" : refused > 0 ? " bad" : " idle";
  el.setAttribute("class", `edge ${e.side}${kind}`);
  if (e.state) el.dataset.state = e.state;
  const bend = Math.max(24, (e.x2 - e.x1) * 0.5);
  const d = `M${e.x1.toFixed(1)} ${e.y1.toFixed(1)}C${(e.x1 + bend).toFixed(1)} ${e.y1.toFixed(1)} ${(e.x2 - bend).toFixed(1)} ${e.y2.toFixed(1)} ${e.x2.toFixed(1)} ${e.y2.toFixed(1)}`;
  const [line, flow, label] = el.children;
  line.setAttribute("d", d);
  flow.setAttribute("d", d);
  el.style.setProperty("--w", `${(1.3 + Math.log2(1 + calls) * 0.75).toFixed(2)}px`);
  // Only a new value starts the movement anew.
  const pace = `${[4, 3, 2.2, 1.6, 1.2][Math.min(4, Math.floor(Math.log10(1 + calls)))]}s`;
  if (el.style.getPropertyValue("--t") !== pace) el.style.setProperty("--t", pace);
  const unit = e.small ? "" : "/s";
  let text = calls > 0 ? number(calls) + unit : "";
  if (refused > 0 && e.side === "in") text += `${text ? "  " : ""}✕ ${number(refused)}${unit}`;
  if (label.textContent !== text) label.textContent = text;
  label.setAttribute("x", e.x2 - (e.small ? 5 : 10));
  label.setAttribute("y", e.y2 + 4);
  label.setAttribute("text-anchor", "end");
}

function paintNode(n) {
  const el = element(n.key, nodes, () => {
    const g = make("g");
    g.append(make("rect"), make("path", "icon"), make("text"), make("text", "sub"));
    if (n.kind !== "more") {
      g.setAttribute("role", "button");
      g.addEventListener("click", () => press(n.key));
      g.addEventListener("focus", () => { tabStop = n.key; });
    }
    return g;
  });
  el.setAttribute("class", `node ${n.kind}`);
  el.dataset.state = n.it.state;
  el.setAttribute("transform", `translate(${n.x.toFixed(1)} ${n.y.toFixed(1)})`);
  const [rect, icon, title, sub] = el.children;
  rect.setAttribute("width", n.w);
  rect.setAttribute("height", n.h);
  rect.setAttribute("rx", n.kind === "group" ? Math.min(18, n.h / 2.6) : 9);
  const at = { x: n.small ? 9 : 18, y: n.h / 2 };
  icon.dataset.state = n.it.state;
  icon.setAttribute("d", n.kind === "more" ? "" : shape(n.it.state, at, n.small ? 3.6 : 5));
  const left = n.small ? 17 : 32;
  const room = n.w - left - (n.small ? 3 : 6);
  const [head, below] = words(n);
  title.setAttribute("class", n.kind === "backend" ? "addr" : n.kind === "more" ? "sub" : "");
  const kind = n.kind === "backend" ? "addr" : n.kind === "more" ? "sub" : "title";
  put(title, fit(head, room, fonts[kind][n.small ? 1 : 0]), left, n.h / 2 + (below ? (n.small ? -2 : -3) : 4));
  put(sub, fit(below, room, fonts.sub[n.small ? 1 : 0]), left, n.h / 2 + (n.small ? 10 : 14));
  el.setAttribute("aria-label", label(n));
  if (n.kind !== "more") el.setAttribute("aria-pressed", String(chosen === n.key));
}

function put(text, words, x, y) {
  if (text.textContent !== words) text.textContent = words;
  text.setAttribute("x", x);
  text.setAttribute("y", y);
}

// Fonts of the texts in nodes, as the style has them: wide, and small.
const family = getComputedStyle(document.body).fontFamily;
const mono = getComputedStyle(document.body).getPropertyValue("--mono");
const fonts = {
  title: [`600 14px ${family}`, `600 11.5px ${family}`],
  sub: [`12px ${family}`, `9.5px ${family}`],
  addr: [`500 12.5px ${mono}`, `500 9px ${mono}`],
};
const ruler = document.createElement("canvas").getContext("2d");

// fit cuts what is wider than there is room.
function fit(text, room, font) {
  ruler.font = font;
  if (ruler.measureText(text).width <= room) return text;
  let n = text.length - 1;
  while (n > 1 && ruler.measureText(`${text.slice(0, n)}…`).width > room) n--;
  return `${text.slice(0, n)}…`;
}

function words(n) {
  const it = n.it;
  switch (n.kind) {
    case "group": {
      if (it.host) return ["host", n.small ? "the rest" : "in no group"];
      if (it.anchors === 0) return [it.name, "no slice yet"];
      return [it.name, `${it.members} member${it.members === 1 ? "" : "s"}`];
    }
    case "vip":
      return [it.name, it.frontends.length ? `${it.frontends[0]}${it.frontends.length > 1 ? ` +${it.frontends.length - 1}` : ""}` : "no frontend"];
    case "backend": {
      const share = `${Math.round(it.share * 100)} % of new calls`;
      const what = it.state === "active" ? (n.small ? `${Math.round(it.share * 100)} %` : share) : it.reason || it.state;
      return [it.address, it.group ? `for ${it.group}, ${what}` : what];
    }
    default:
      return [it.text, ""];
  }
}

function label(n) {
  const rate = n.it.rate ? `, ${number(n.it.rate.calls)} calls a second` : "";
  const [head, below] = words(n);
  return `${n.kind} ${head}, ${n.it.state}, ${below}${rate}`;
}

// shape is a state's: told apart without colour too.
function shape(s, { x, y }, r) {
  switch (s) {
    case "down":
      return `M${x - r} ${y - r}L${x + r} ${y + r}M${x + r} ${y - r}L${x - r} ${y + r}`;
    case "draining":
    case "partly":
      return `M${x} ${y - r - 1}L${x + r + 1} ${y + r}L${x - r - 1} ${y + r}Z`;
    default:
      return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
  }
}

function press(key) {
  chosen = chosen === key ? null : key;
  tabStop = key;
  window.dispatchEvent(new Event("chosen"));
}

function keys(e) {
  const key = document.activeElement?.dataset?.key;
  const col = cells.findIndex((c) => c.some((n) => n.key === key));
  if (col < 0) return;
  const at = cells[col].findIndex((n) => n.key === key);
  const here = cells[col][at];
  let to;
  switch (e.key) {
    case "Enter":
    case " ":
      press(key);
      e.preventDefault();
      return;
    case "ArrowDown": to = cells[col][at + 1]; break;
    case "ArrowUp": to = cells[col][at - 1]; break;
    case "Home": to = cells[col][0]; break;
    case "End": to = cells[col].at(-1); break;
    case "ArrowLeft":
    case "ArrowRight": {
      const other = cells[col + (e.key === "ArrowLeft" ? -1 : 1)] ?? [];
      to = other.toSorted((a, b) => Math.abs(a.y - here.y) - Math.abs(b.y - here.y))[0];
      break;
    }
    default: return;
  }
  e.preventDefault();
  if (to) kept.get(to.key).focus();
}

// light shows what belongs to the chosen node and dims the rest.
function light(scene) {
  const on = new Set();
  const add = (e) => [e.key, e.from.key, e.to.key].forEach((k) => on.add(k));
  const node = cells.flat().find((n) => n.key === chosen);
  if (node) {
    on.add(node.key);
    const vips = new Set(node.kind === "vip" ? [node] : scene.edges.filter((e) => e.from === node || e.to === node).map((e) => (node.kind === "group" ? e.to : e.from)));
    for (const e of scene.edges) {
      if (node.kind === "group" ? e.from === node || vips.has(e.from) : vips.has(e.to) || (vips.has(e.from) && (node.kind !== "backend" || e.to === node))) add(e);
    }
  }
  svg.classList.toggle("chosen", on.size > 0);
  for (const [key, el] of kept) el.classList.toggle("on", on.has(key));
}

// explain says in words what is chosen.
function explain(detail, scene) {
  const node = cells.flat().find((n) => n.key === chosen);
  detail.hidden = !node;
  if (!node) return;
  const it = node.it;
  const list = (l, none) => (l === null || l === undefined || l.length === 0 ? none : l.join(", "));
  const facts = { vip: () => [
    ["frontends", list(it.frontends, "none")],
    ["clients", it.clients === null ? "everybody" : list(it.clients, "nobody")],
    ["except", list(it.except, "nobody")],
    ["backends", `${it.upAll} of ${it.all.length} active`],
    ["when all are down", it.when_down],
    ["calls", `${it.counters.connects} connects, ${it.counters.flows} UDP flows, ${it.counters.passed} passed, ${it.counters.rejected} rejected`],
  ], backend: () => [
    ["of", it.group ? `${it.vip}, for group ${it.group}` : it.vip],
    ["state", state(it)],
    ["weight", `${it.weight}, ${Math.round(it.share * 100)} % of new calls`],
    ["health check", check(it.check)],
    ["open sockets", String(it.live)],
    ["calls", `${it.counters.connects} connects, ${it.counters.flows} UDP flows`],
  ], group: () => [
    ["slices", it.host ? "every caller that is in no group" : String(it.slices)],
    ["not there yet", it.pending ? String(it.pending) : ""],
    ["split", it.split ? "each member is a group of its own" : ""],
    ["members", it.host ? "" : String(it.members)],
    ["translated", it.translate ? "yes" : "no: its calls reach VIPs untouched"],
  ] }[node.kind]();
  const h = document.createElement("h3");
  h.textContent = node.kind === "backend" ? it.address : it.name;
  const dl = document.createElement("dl");
  for (const [name, value] of facts) {
    if (value === "") continue;
    const dt = document.createElement("dt");
    const dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    dl.append(dt, dd);
  }
  detail.replaceChildren(h, dl);
}
