// The tables below the picture: everything, also what the picture leaves out.
import { number, span } from "./words.js";

const rows = new Map(); // by table and key: a row stays, its text changes

const columns = {
  vips: ["VIP", "Frontends", "Backends up", "Calls/s", "Refused/s", "Passed/s", "Clients"],
  backends: ["Backend", "VIP", "State", "Share", "Calls/s", "Open", "Check"],
  groups: ["Group", "Slices", "Anchors", "Members", "Calls/s", "Refused/s"],
};
const numeric = new Set(["Backends up", "Calls/s", "Refused/s", "Passed/s", "Share", "Open", "Slices", "Anchors", "Members"]);

export function fill(tables, model, find) {
  table(tables.vips, "vips", model.vips.filter((v) => matches(find, v.name, ...v.frontends, ...v.backends.map((b) => b.address))), (v) => [
    mark(v.state, v.name), v.frontends.join(" "), `${v.upAll} of ${v.all.length}`,
    rate(v.rate?.calls), rate(v.rate?.refused), rate(v.rate?.passed), v.clients ? v.clients.join(", ") || "nobody" : "everybody",
  ], (v) => v.name);
  table(tables.backends, "backends", model.backends.filter((b) => matches(find, b.address, b.vip, b.group)), (b) => [
    mark(b.state, b.address, true), b.group ? `${b.vip}, for ${b.group}` : b.vip, state(b),
    `${Math.round(b.share * 100)} %`, rate(b.rate?.calls), { text: String(b.live), zero: !b.live }, check(b.check),
  ], (b) => b.key);
  table(tables.groups, "groups", model.groups.filter((g) => matches(find, g.name)), (g) => [
    mark(g.state, g.name), g.host ? "" : String(g.slices), g.host ? "" : String(g.anchors), g.host ? "" : String(g.members),
    rate(g.rate?.calls), rate(g.rate?.refused),
  ], (g) => g.name);
}

export function matches(find, ...texts) {
  return find === "" || texts.some((t) => t && t.toLowerCase().includes(find));
}

const mark = (state, text, mono) => ({ state, text, mono });
const rate = (n) => ({ text: number(n), zero: !n });

export function state(b) {
  const since = b.since ? `, for ${span((Date.now() - Date.parse(b.since)) / 1000)}` : "";
  return b.reason ? `${b.state}: ${b.reason}${since}` : b.state;
}

export function check(c) {
  if (!c) return "none";
  return c.count === 0 ? `${c.type}: not yet` : `${c.type} ${c.state}, ${(c.took_ns / 1e6).toFixed(1)} ms`;
}

// table changes rows in place, so that what a reader has selected stays so.
function table(el, name, items, cells, key) {
  if (!el.tHead) {
    const head = el.createTHead().insertRow();
    for (const title of columns[name]) {
      const th = document.createElement("th");
      th.scope = "col";
      th.textContent = title;
      if (numeric.has(title)) th.className = "n";
      head.append(th);
    }
    el.append(document.createElement("tbody"));
  }
  const want = [];
  for (const item of items) {
    const id = `${name} ${key(item)}`;
    let row = rows.get(id);
    if (!row) {
      row = document.createElement("tr");
      for (const title of columns[name]) {
        const td = document.createElement("td");
        td.dataset.name = title;
        row.append(td);
      }
      rows.set(id, row);
    }
    cells(item).forEach((cell, i) => set(row.cells[i], columns[name][i], cell));
    want.push(row);
  }
  if (want.length === 0) want.push(nothing(name));
  const body = el.tBodies[0];
  want.forEach((row, i) => {
    if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] ?? null);
  });
  while (body.rows.length > want.length) {
    const last = body.rows[body.rows.length - 1];
    last.remove();
    for (const [id, row] of rows) if (row === last) rows.delete(id);
  }
}

function nothing(name) {
  const row = document.createElement("tr");
  row.className = "empty";
  const td = row.insertCell();
  td.colSpan = columns[name].length;
  td.textContent = "none";
  return row;
}

function set(td, title, cell) {
  const text = typeof cell === "string" ? cell : cell.text;
  const kind = (numeric.has(title) ? "n" : "") + (cell.zero ? " zero" : "");
  if (td.className !== kind) td.className = kind;
  if (cell.state === undefined) {
    if (td.textContent !== text) td.textContent = text;
    return;
  }
  if (!td.firstElementChild) {
    const icon = document.createElement("span");
    icon.setAttribute("role", "img");
    const words = document.createElement("span");
    td.append(icon, words);
  }
  const [icon, words] = td.children;
  icon.className = "mark";
  icon.dataset.state = cell.state;
  icon.setAttribute("aria-label", cell.state);
  words.className = cell.mono ? "mono" : "";
  if (words.textContent !== text) words.textContent = text;
}
