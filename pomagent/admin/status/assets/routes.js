// The table of routes: filter, rows and details.

const MAX_ROWS = 200;
const SAMPLES_KEPT = 150;  // five minutes
const KIND_OF_STATE = {
  up: "good", untried: "still", degraded: "warn", down: "bad", unauthenticated: "bad", denied: "bad", quarantined: "bad",
  paused: "warn", draining: "warn", disabled: "still",
};
const WORST_FIRST = ["bad", "warn", "good", "still"];

const chosen = { states: new Set(), text: "", all: false, open: new Set() };
const histories = new Map();

/** Rates of a route between two refreshes. */
class RouteHistory {
  constructor() {
    this.up = new History(SAMPLES_KEPT);
    this.down = new History(SAMPLES_KEPT);
    this.wait = new History(SAMPLES_KEPT);
    this.before = null;
    this.latest = { up: 0, down: 0, wait: null };
  }

  record(traffic, seconds) {
    const before = this.before;
    this.before = traffic;
    if (!traffic || !before || seconds <= 0 || traffic.leases < before.leases) return;
    const leases = traffic.leases - before.leases;
    this.latest = {
      up: Math.max(0, traffic.bytes_up - before.bytes_up) / seconds,
      down: Math.max(0, traffic.bytes_down - before.bytes_down) / seconds,
      wait: leases ? (traffic.waited_ms - before.waited_ms) / leases : null,
      leases,
    };
    this.up.add(this.latest.up);
    this.down.add(this.latest.down);
    this.wait.add(this.latest.wait);
  }

  get lastWait() {
    return this.wait.values.findLast((value) => value !== null) ?? null;
  }
}

function historyOf(route) {
  if (!histories.has(route.name)) histories.set(route.name, new RouteHistory());
  return histories.get(route.name);
}

function recordRoutes(routes, seconds) {
  const names = new Set(routes.map((route) => route.name));
  for (const name of histories.keys()) if (!names.has(name)) histories.delete(name);
  routes.forEach((route) => historyOf(route).record(route.traffic, seconds));
}

function matches(route) {
  const text = [route.name, route.description, route.destination, route.gateway, route.listen, ...route.tags.map((tag) => `#${tag}`)];
  return (!chosen.states.size || chosen.states.has(route.state))
    && chosen.text.toLowerCase().split(/\s+/).every((word) => text.join(" ").toLowerCase().includes(word));
}

function showRoutes(routes) {
  showStates(routes);
  const rank = (route) => WORST_FIRST.indexOf(KIND_OF_STATE[route.state] ?? "still");
  const found = routes.filter(matches).sort((a, b) => rank(a) - rank(b));
  const shown = chosen.all ? found : found.slice(0, MAX_ROWS);
  const rows = document.getElementById("rows");
  reconcile(rows, shown, (route) => route.name, makeRow, updateRow);
  const more = document.getElementById("more");
  if (shown.length < found.length) {
    if (!more.querySelector("button")) {
      const button = make("button", "", `Show all ${found.length} routes`);
      button.onclick = () => { chosen.all = true; redraw(); };
      more.replaceChildren(button);
    }
  } else setText(more, found.length ? "" : routes.length ? "No route matches. Esc clears the filter." : "No routes are configured.");
}

function showStates(routes) {
  const counts = new Map();
  routes.forEach((route) => counts.set(route.state, (counts.get(route.state) ?? 0) + 1));
  chosen.states.forEach((state) => { if (!counts.has(state)) counts.set(state, 0); });
  const rank = (state) => WORST_FIRST.indexOf(KIND_OF_STATE[state] ?? "still");
  const states = [...counts.keys()].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  reconcile(document.getElementById("states"), states, (state) => state, (state) => {
    const button = make("button");
    button.type = "button";
    button.onclick = () => {
      if (!chosen.states.delete(state)) chosen.states.add(state);
      redraw();
    };
    return { elements: [button] };
  }, ({ elements: [button] }, state) => {
    setText(button, `${state} ${counts.get(state)}`);
    button.setAttribute("aria-pressed", chosen.states.has(state));
  });
}

function makeRow(route) {
  const cells = { state: make("td", "state-cell"), name: make("td", "name"), listens: make("td", "listens"), pool: make("td", "pool"),
    sessions: make("td", "number"), traffic: make("td", "traffic"), wait: make("td", "wait") };
  const state = make("span", "state"), button = make("button", "", route.name), tags = make("span"), about = make("span", "to");
  const listens = make("span", "mono"), to = make("span", "to mono"), pips = make("span", "pips"), pool = make("span", "figure");
  const rate = make("span", "figure"), wait = make("span", "figure");
  const speed = new Spark(["down", "up"], 1000), waits = new Spark(["up"], 5);
  button.type = "button";
  button.setAttribute("aria-expanded", "false");
  button.onclick = () => {
    if (!chosen.open.delete(route.name)) chosen.open.add(route.name);
    redraw();
  };
  pips.setAttribute("aria-hidden", "true");
  cells.state.append(state);
  cells.name.append(button, tags, about);
  cells.listens.append(listens, to);
  cells.pool.append(pips, pool);
  cells.traffic.append(rate, speed.element);
  cells.wait.append(wait, waits.element);
  const reason = make("p"), list = make("dl");
  const why = make("tr", "why", wide(reason)), details = make("tr", "details", wide(list));
  return { elements: [make("tr", "", ...Object.values(cells)), why, details],
    state, button, tags, about, listens, to, pips, pool, sessions: cells.sessions, rate, wait, speed, waits, reason, why, details, list };
}

function wide(child) {
  const cell = make("td", "", child);
  cell.colSpan = 7;
  return cell;
}

function updateRow(row, route) {
  const kind = KIND_OF_STATE[route.state] ?? "still", past = historyOf(route), isOpen = chosen.open.has(route.name);
  setClass(row.state, `state ${kind}`);
  setText(row.state, route.state);
  reconcile(row.tags, route.tags, (tag) => tag, (tag) => ({ elements: [make("span", "tag", tag)] }), () => {});
  setText(row.about, route.description);
  setText(row.listens, route.listen);
  setText(row.to, `→ ${route.destination}`);
  const most = Math.min(8, Math.max(route.target, route.warm));
  reconcile(row.pips, Array.from({ length: most }, (_, at) => at), (at) => at, () => ({ elements: [make("i")] }),
    ({ elements: [pip] }, at) => setClass(pip, at < route.warm ? "full" : ""));
  setText(row.pool, route.keeps_warm === "off" ? "off" : `${route.warm} of ${route.target}${route.keeps_warm === "tls" ? " tls" : ""}`);
  setText(row.sessions, route.waiting ? `${route.sessions} (${route.waiting} waiting)` : route.sessions);
  setText(row.rate, `${bytes(past.latest.up + past.latest.down)}/s`);
  row.speed.show([past.down.values, past.up.values], SAMPLES_KEPT);
  setText(row.wait, milliseconds(past.lastWait));
  row.waits.show([past.wait.values], SAMPLES_KEPT);
  row.why.hidden = !route.reason;
  setClass(row.why, kind === "bad" ? "why" : "why warn");
  setText(row.reason, route.reason);
  row.details.hidden = !isOpen;
  row.button.setAttribute("aria-expanded", isOpen);
  if (isOpen) showDetails(row.list, route);
}

function showDetails(list, route) {
  const pool = route.pool, traffic = route.traffic;
  const counts = (found) => Object.entries(found).map(([name, count]) => `${name} ${count}`).join(", ") || "none";
  const facts = [["Gateway", route.gateway], ["Protocol", route.protocol]];
  if (pool && traffic) {
    facts.push(
      ["Keeps warm", `${pool.level}: ${pool.why}`],
      ["Clients served", counts(pool.takes)],
      ["Sessions ended", traffic.closed],
      ["Refused", counts(traffic.refused)],
      ["Relayed up / down", `${bytes(traffic.bytes_up)} / ${bytes(traffic.bytes_down)}`],
      ["Failed dials", counts(pool.failures)],
      ["Discarded warm tunnels", counts(pool.discards)],
      ["Breaker", pool.breaker.state + (pool.breaker.retry_in_s ? `, next dial in ${duration(Math.ceil(pool.breaker.retry_in_s))}` : "")],
    );
    if (pool.period) facts.push(["Timeout on the path", pool.period.says]);
  }
  reconcile(list, facts, ([name]) => name, ([name]) => {
    const value = make("dd");
    return { elements: [make("div", "", make("dt", "", name), value)], value };
  }, ({ value }, [, text]) => setText(value, text));
}
