// Looks at the agent every two seconds while somebody looks at the page, and shows what it says.

const LOOK_EVERY_MS = 2000;
const PATIENCE_MS = 8000;
const SESSIONS_SHOWN = 50;
const NAMES_SHOWN = 8;
const DAY_S = 86400;
const CERTIFICATE_SOON_S = 14 * DAY_S;
const TOKEN_SOON_S = { command: 300, login: 3600 };  // the others are a person's to renew

const byId = (id) => document.getElementById(id);
let shown = null, sessions = null, lookedAt = 0, before = 0, failure = "", waiting = 0;
const totals = { up: new History(LOOKS_KEPT), down: new History(LOOKS_KEPT), sessions: new History(LOOKS_KEPT), wait: new History(LOOKS_KEPT) };
const tiles = makeTiles();

async function get(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

async function look() {
  clearTimeout(waiting);
  try {
    const [status, list] = await Promise.all([get("status.json"), get(`sessions.json?limit=${SESSIONS_SHOWN}`)]);
    const now = performance.now();
    const isSame = shown && shown.pid === status.pid;
    lookAtRoutes(status.routes, isSame ? (now - before) / 1000 : 0);
    [before, shown, sessions, lookedAt, failure] = [now, status, list, Date.now(), ""];
    addTotals(status);
    redraw();
  } catch (error) {
    failure = error.name === "TimeoutError" || error instanceof TypeError ? "the agent does not answer" : error.message;
  }
  showLive();
  if (!document.hidden) waiting = setTimeout(look, LOOK_EVERY_MS);
}

function addTotals(status) {
  const latest = status.routes.map((route) => historyOf(route).latest);
  const sum = (name) => latest.reduce((total, one) => total + one[name], 0);
  const timed = latest.filter((one) => one.wait !== null && one.leases);
  const leases = timed.reduce((total, one) => total + one.leases, 0);
  totals.up.add(sum("up"));
  totals.down.add(sum("down"));
  totals.sessions.add(status.sessions);
  totals.wait.add(leases ? timed.reduce((total, one) => total + one.wait * one.leases, 0) / leases : null);
}

function redraw() {
  if (!shown) return;
  byId("static")?.remove();
  byId("app").hidden = false;
  say(byId("what"), `${shown.version} on ${location.hostname} · up ${lasting(shown.uptime_s)} · generation ${shown.generation}`);
  showVerdict(shown);
  showTiles(shown);
  showRoutes(shown.routes);
  showEvents(shown.events);
  showExpiring(byId("credentials"), shown.credentials.map((credential) => ({
    name: credential.name, about: credential.source.replaceAll("_", " "), until: credential.expires_at,
    problem: credential.problem || (credential.has_token ? "" : "there is no token yet"), note: credential.note,
    soon: TOKEN_SOON_S[credential.source] ?? DAY_S,
    without: credential.has_token ? "does not say when it ends" : "",
  })));
  showExpiring(byId("gateways"), shown.gateways.map((gateway) => ({
    name: gateway.name, about: gateway.address, until: gateway.certificate_expires, problem: "",
    note: [gateway.handshakes ? many(gateway.handshakes, "handshake") + " under way" : "",
      gateway.tunnels_lost ? `lost all its tunnels ${many(gateway.tunnels_lost, "time")}` : "",
      gateway.addresses_avoided.length ? `dials last: ${gateway.addresses_avoided.join(", ")}` : ""].filter(Boolean).join(" · "),
    soon: CERTIFICATE_SOON_S, without: "no certificate seen yet",
  })));
  showConfiguration(shown);
  showSessions(sessions);
}

function troubles(status) {
  return status.routes.filter((route) => ["bad", "warn"].includes(KINDS[route.state]));
}

function showVerdict(status) {
  const enabled = status.routes.filter((route) => route.state !== "disabled");
  const ill = troubles(status), verdict = byId("verdict"), rejected = status.last_reload?.result === "rejected";
  const bad = ill.filter((route) => KINDS[route.state] === "bad");
  const lines = [];
  if (status.is_draining) lines.push(["", "The agent was told to stop: it accepts no more, and its sessions may finish."]);
  if (rejected) lines.push(["configuration", firstOf(status.last_reload.problems)]);
  status.credentials.filter((one) => one.problem).forEach((one) => lines.push([one.name, one.problem]));
  const states = [...new Set(bad.map((route) => route.state))];
  states.forEach((state) => lines.push([state, namesOf(bad.filter((route) => route.state === state))]));
  const said = ill.length ? `${ill.length} of ${many(enabled.length, "route")} ${ill.length === 1 ? "needs" : "need"} attention`
    : !enabled.length ? "There are no routes"
    : enabled.some((route) => route.state === "untried") ? `${many(enabled.length, "route")}, nothing wrong`
    : enabled.length === 1 ? "The route is up" : `All ${enabled.length.toLocaleString("en")} routes are up`;
  const title = status.is_draining ? "Draining" : rejected ? `${said}; the last edit was rejected` : said;
  kindOf(verdict, `verdict ${bad.length ? "bad" : ill.length || rejected || lines.length ? "warn" : ""}`.trim());
  const wanted = JSON.stringify([title, lines, bad.length]);
  if (verdict.told !== wanted) {
    verdict.told = wanted;
    const items = lines.map(([name, text]) => make("li", "", make("b", "", name ? `${name}: ` : ""), text));
    verdict.replaceChildren(make("p", "", title), ...(items.length ? [make("ul", "", ...items)] : []));
  }
  document.title = ill.length ? `(${ill.length}) pomagent` : "pomagent";
  const colour = bad.length ? "%23d0342c" : ill.length || rejected ? "%23d08a00" : "%231a9955";
  const icon = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='7' fill='${colour}'/></svg>`;
  if (byId("icon").getAttribute("href") !== icon) byId("icon").setAttribute("href", icon);
}

function firstOf(problems) {
  return problems.length > 1 ? `${problems[0]} (and ${problems.length - 1} more, below)` : problems[0] ?? "";
}

function namesOf(routes) {
  const names = routes.slice(0, NAMES_SHOWN).map((route) => route.name).join(", ");
  return routes.length > NAMES_SHOWN ? `${names} and ${routes.length - NAMES_SHOWN} more` : names;
}

function makeTiles() {
  const made = {};
  const tile = (id, name, curve) => {
    const value = make("span", "value"), element = make("div", "tile", make("span", "name", name), value);
    if (curve) element.append(curve.element);
    byId("tiles").append(element);
    made[id] = { value, curve, element };
  };
  tile("routes", "Routes in order", null);
  tile("sessions", "Sessions", new Spark(["up"], 4));
  tile("down", "Down, from the gateways", new Spark(["down"], 1000));
  tile("up", "Up, to the gateways", new Spark(["up"], 1000));
  tile("wait", "Wait for a tunnel", new Spark(["up"], 5));
  made.share = make("div", "share");
  made.share.setAttribute("aria-hidden", "true");
  made.routes.element.append(made.share);
  made.pools = make("span", "quiet");
  made.routes.element.append(made.pools);
  return made;
}

function showTiles(status) {
  const enabled = status.routes.filter((route) => route.state !== "disabled");
  const warm = enabled.reduce((sum, route) => sum + route.warm, 0), target = enabled.reduce((sum, route) => sum + route.target, 0);
  const wait = totals.wait.values.findLast((value) => value !== null) ?? null;
  figure(tiles.routes.value, String(enabled.length - troubles(status).length), ` of ${enabled.length.toLocaleString("en")}`);
  say(tiles.pools, `${warm.toLocaleString("en")} of ${target.toLocaleString("en")} tunnels warm`);
  keep(tiles.share, WORST_FIRST, (kind) => kind, (kind) => ({ elements: [make("i", kind)] }), ({ elements: [part] }, kind) => {
    const count = enabled.filter((route) => KINDS[route.state] === kind).length;
    part.hidden = !count;
    part.style.flexGrow = count;
  });
  figure(tiles.sessions.value, status.sessions.toLocaleString("en"), "");
  figure(tiles.down.value, bytes(totals.down.values.at(-1) ?? 0), "/s");
  figure(tiles.up.value, bytes(totals.up.values.at(-1) ?? 0), "/s");
  figure(tiles.wait.value, milliseconds(wait), wait === null ? "" : " on average");
  for (const name of ["sessions", "down", "up", "wait"]) tiles[name].curve.show([totals[name].values], LOOKS_KEPT);
}

function figure(element, value, unit) {
  if (element.told === value + unit) return;
  element.told = value + unit;
  element.replaceChildren(value, make("small", "", unit));
}

function showEvents(events) {
  const list = byId("events");
  keep(list, events, (one) => `${one.event} ${one.at}`, (one) => {
    const what = make("span", "head"), when = make("time", "quiet"), text = make("p");
    when.dateTime = one.at;
    when.title = clock(one.at);
    return { elements: [make("li", one.level, what, when, text)], what, when, text };
  }, (made, one) => {
    const about = one.fields.route ?? one.fields.gateway ?? one.fields.credential ?? "";
    say(made.what, `${one.event}${about ? ` · ${about}` : ""}${one.count > 1 ? ` × ${one.count}` : ""}`);
    say(made.when, `${lasting((Date.now() - Date.parse(one.at)) / 1000)} ago`);
    say(made.text, sentence(one.fields));
  });
}

/** What an event says, in its own words if it has any. */
function sentence(fields) {
  const own = fields.error ?? fields.warning;
  if (Array.isArray(fields.problems)) return fields.problems.join("\n");
  if (own) return fields.user || fields.uid !== undefined && fields.uid !== null ? `${fields.user ?? `uid ${fields.uid}`}: ${own}` : own;
  const skip = new Set(["route", "gateway", "credential"]);
  return Object.entries(fields).filter(([name, value]) => !skip.has(name) && value !== null && value !== "")
    .map(([name, value]) => `${name.replaceAll("_", " ")}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ");
}

function showExpiring(list, items) {
  keep(list, items, (one) => one.name, (one) => {
    const name = make("b", "", one.name), left = make("span", "left"), about = make("div", "quiet"), problem = make("div"), note = make("div", "quiet");
    return { elements: [make("li", "card", make("div", "line", name, left), about, problem, note)], left, about, problem, note };
  }, (made, one) => {
    const seconds = one.until === null ? null : (Date.parse(one.until) - Date.now()) / 1000;
    const kind = one.problem || (seconds !== null && seconds <= 0) ? "bad" : seconds !== null && seconds < one.soon ? "warn" : "";
    kindOf(made.elements[0], `card ${kind}`.trim());
    say(made.left, seconds === null ? one.without : seconds > 0 ? `${lasting(seconds)} left` : `expired ${lasting(-seconds)} ago`);
    say(made.about, one.until ? `${one.about} · until ${clock(one.until)}` : one.about);
    say(made.problem, one.problem);
    say(made.note, one.note);
  });
  if (!items.length && !list.firstChild) list.append(make("li", "card quiet", "none in use"));
}

function showConfiguration(status) {
  const last = status.last_reload, problems = last?.problems ?? [];
  const wanted = JSON.stringify([status.config, last, status.generation]);
  const place = byId("configuration");
  if (place.told === wanted) return;
  place.told = wanted;
  const kind = last?.result === "rejected" ? "card bad" : "card";
  const said = !last ? "not reloaded since the start" : last.result === "rejected" ? "last edit rejected" : `last edit ${last.result}`;
  const list = problems.length ? [make("ul", "", ...problems.map((problem) => make("li", "", problem)))] : [];
  place.replaceChildren(make("div", kind, make("div", "line", make("b", "mono", status.config.path), make("span", "left", said)),
    make("div", "quiet", `version ${status.config.sha}, generation ${status.generation}${last ? ` · ${clock(last.at)}` : ""}`), ...list));
}

function showSessions(list) {
  const rows = byId("sessions");
  keep(rows, list.sessions, (one) => one.session, (one) => {
    const cells = Array.from({ length: 9 }, (_, at) => make("td", [0, 4, 5, 6, 7].includes(at) ? "number" : at === 8 ? "mono" : ""));
    return { elements: [make("tr", "", ...cells)], cells };
  }, ({ cells }, one) => [
    one.session, one.route, one.peer, one.user ?? (one.uid === null ? "unknown" : `uid ${one.uid}`), lasting(one.age_s),
    one.waited_ms === null ? "waits" : milliseconds(one.waited_ms), bytes(one.bytes_up), bytes(one.bytes_down), one.request_id,
  ].forEach((text, at) => say(cells[at], text)));
  say(byId("more-sessions"), !list.total ? "No session runs." : list.total > list.sessions.length ? `The last ${list.sessions.length} of ${list.total.toLocaleString("en")}.` : "");
}

function showLive() {
  const live = byId("live"), late = lookedAt ? ` · shown as of ${new Date(lookedAt).toLocaleTimeString()}` : "";
  kindOf(live, failure ? "live lost" : "live");
  say(live, failure ? `${failure}${late}` : "live");
}

byId("filter").addEventListener("input", (event) => { chosen.text = event.target.value.trim(); redraw(); });
document.addEventListener("keydown", (event) => {
  const filter = byId("filter");
  if (event.key === "/" && event.target !== filter && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    filter.focus();
  } else if (event.key === "Escape") {
    filter.value = chosen.text = "";
    chosen.states.clear();
    redraw();
  }
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
look();
