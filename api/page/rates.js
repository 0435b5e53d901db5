// Rates come from two readings of the counters, the newest and one of about ten
// seconds before.
const window_ = 10; // seconds
const trendLength = 90;

const sum = (c) => c.connects + c.flows;
const fields = ["connects", "flows", "passed", "rejected", "denied"];

// counters lists every counter of a picture by a key of its own.
function counters(p) {
  const all = new Map();
  for (const v of p.vips) {
    all.set(`v ${v.name}`, v.counters);
    for (const b of backendsOf(v)) all.set(`b ${v.name} ${b.address}`, b.counters);
  }
  for (const c of p.calls) all.set(`c ${c.group} ${c.vip}`, c.counters);
  return { at: Date.parse(p.at) / 1000, all, cut: p.more_vips + p.more_groups > 0 };
}

// backendsOf lists a VIP's backends and those of its views, each once.
function backendsOf(v) {
  const seen = new Map();
  for (const b of v.backends) seen.set(b.address, b);
  for (const view of v.for) for (const b of view.backends) if (!seen.has(b.address)) seen.set(b.address, b);
  return [...seen.values()];
}

// mayCall says whether calls of a group are the VIP's to answer: those of others are
// refused, or left alone.
function mayCall(v, group) {
  if (v.except.includes(group)) return false;
  return !v.clients || v.clients.includes(group) || v.for.some((view) => view.group === group);
}

export class Rates {
  constructor() {
    this.readings = [];
    this.trend = [];
  }

  get length() { return this.readings.length; }

  forget() { this.readings = []; }

  add(picture) {
    const reading = counters(picture);
    const last = this.readings.at(-1);
    if (last && reading.at <= last.at) return; // the same answer again
    this.readings.push(reading);
    while (this.readings.length > 2 && reading.at - this.readings[1].at >= window_) this.readings.shift();
  }

  // of is the rates behind a key; undefined before there are two readings. A
  // counter that went back began again; one that the reading before had no room for
  // did not.
  of(key) {
    const a = this.readings[0], b = this.readings.at(-1);
    if (!b || a === b) return undefined;
    const now = b.all.get(key), before = a.all.get(key);
    const out = {};
    for (const f of fields) {
      const n = now?.[f] ?? 0, m = before?.[f] ?? (a.cut ? n : 0);
      out[f] = (n >= m ? n - m : n) / (b.at - a.at);
    }
    out.calls = sum(out);
    out.refused = out.rejected + out.denied;
    return out;
  }

  // model is a picture with rates, and with what follows from it.
  model(picture) {
    const m = { picture, vips: [], backends: [], groups: [], edges: [], calls: undefined, refused: undefined };
    const calls = new Map(), into = new Map();
    const edge = (group, vip, may) => {
      const key = `c ${group} ${vip}`;
      if (!calls.has(key)) {
        const e = { group, vip, may, rate: this.of(key), counters: undefined };
        calls.set(key, e);
        m.edges.push(e);
      }
      return calls.get(key);
    };
    for (const v of picture.vips) {
      const backends = backendsOf(v).map((b) => ({ ...b, key: `${v.name} ${b.address}`, rate: this.of(`b ${v.name} ${b.address}`) }));
      const up = backends.filter((b) => b.state === "active").length;
      const state = backends.length === 0 || up === 0 ? "down" : up < backends.length ? "partly" : "active";
      const vip = { ...v, all: backends, state, upAll: up, rate: this.of(`v ${v.name}`) };
      m.vips.push(vip);
      m.backends.push(...backends);
      if (vip.rate) {
        m.calls = (m.calls ?? 0) + vip.rate.calls;
        m.refused = (m.refused ?? 0) + vip.rate.refused;
      }
      for (const group of v.clients ?? []) edge(group, v.name, true);
    }
    if (this.length > 1) {
      m.calls ??= 0;
      m.refused ??= 0;
    }
    const named = new Map(picture.vips.map((v) => [v.name, v]));
    for (const c of picture.calls) {
      const v = named.get(c.vip);
      edge(c.group, c.vip, v !== undefined && mayCall(v, c.group)).counters = c.counters;
    }
    // Who may not call is drawn while it does.
    m.edges = m.edges.filter((e) => e.may || (e.rate && e.rate.calls + e.rate.refused > 0));
    for (const g of picture.groups) m.groups.push({ ...g, state: g.anchors > 0 ? "active" : "pending" });
    if (m.edges.some((e) => e.group === "host")) {
      m.groups.push({ name: "host", host: true, slices: 0, pending: 0, anchors: 0, members: 0, translate: true, state: "active" });
    }
    for (const e of m.edges) {
      const at = into.get(e.group) ?? { calls: 0, refused: 0 };
      at.calls += e.rate?.calls ?? 0;
      at.refused += e.rate?.refused ?? 0;
      into.set(e.group, at);
    }
    for (const g of m.groups) g.rate = this.length > 1 ? into.get(g.name) ?? { calls: 0, refused: 0 } : undefined;
    if (m.calls !== undefined) {
      this.trend.push(m.calls);
      if (this.trend.length > trendLength) this.trend.shift();
    }
    return m;
  }
}
