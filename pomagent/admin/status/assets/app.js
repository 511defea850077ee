// Fetches the status every two seconds while the page is visible, and shows it.

const REFRESH_MS = 2000;
const TIMEOUT_MS = 8000;
const SESSIONS_SHOWN = 50;
const NAMES_SHOWN = 8;
const DAY_S = 86400;
const CERTIFICATE_SOON_S = 14 * DAY_S;
const TOKEN_SOON_S = { command: 300, login: 3600 };  // other sources are renewed by hand

const byId = (id) => document.getElementById(id);
let shown = null, sessions = null, refreshedAt = 0, before = 0, failure = "", waiting = 0;
const totals = { up: new History(SAMPLES_KEPT), down: new History(SAMPLES_KEPT), sessions: new History(SAMPLES_KEPT), wait: new History(SAMPLES_KEPT) };
const tiles = makeTiles();

async function get(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

async function refresh() {
  clearTimeout(waiting);
  try {
    const [status, list] = await Promise.all([get("status.json"), get(`sessions.json?limit=${SESSIONS_SHOWN}`)]);
    const now = performance.now();
    const isSame = shown && shown.pid === status.pid;
    recordRoutes(status.routes, isSame ? (now - before) / 1000 : 0);
    [before, shown, sessions, refreshedAt, failure] = [now, status, list, Date.now(), ""];
    addTotals(status);
    redraw();
  } catch (error) {
    failure = error.name === "TimeoutError" || error instanceof TypeError ? "the agent does not answer" : error.message;
  }
  showLive();
  if (!document.hidden) waiting = setTimeout(refresh, REFRESH_MS);
}

function addTotals(status) {
  const latest = status.routes.map((route) => historyOf(route).latest);
  const sum = (name) => latest.reduce((total, sample) => total + sample[name], 0);
  const timed = latest.filter((sample) => sample.wait !== null && sample.leases);
  const leases = timed.reduce((total, sample) => total + sample.leases, 0);
  totals.up.add(sum("up"));
  totals.down.add(sum("down"));
  totals.sessions.add(status.sessions);
  totals.wait.add(leases ? timed.reduce((total, sample) => total + sample.wait * sample.leases, 0) / leases : null);
}

function redraw() {
  if (!shown) return;
  byId("static")?.remove();
  byId("app").hidden = false;
  setText(byId("what"), `${shown.version} on ${location.hostname} · up ${duration(shown.uptime_s)} · generation ${shown.generation}`);
  showVerdict(shown);
  showTiles(shown);
  showRoutes(shown.routes);
  showEvents(shown.events);
  showExpiring(byId("credentials"), shown.credentials.map((credential) => ({
    name: credential.name, about: credential.source.replaceAll("_", " "), until: credential.expires_at,
    problem: credential.problem || (credential.has_token ? "" : "no token yet"), note: credential.note,
    soon: TOKEN_SOON_S[credential.source] ?? DAY_S,
    without: credential.has_token ? "no expiry in the token" : "",
  })));
  showExpiring(byId("gateways"), shown.gateways.map((gateway) => ({
    name: gateway.name, about: gateway.address, until: gateway.certificate_expires, problem: "",
    note: [gateway.handshakes ? many(gateway.handshakes, "handshake") + " under way" : "",
      gateway.tunnels_lost ? `${many(gateway.tunnels_lost, "warm tunnel")} lost` : "",
      gateway.addresses_avoided.length ? `avoids ${gateway.addresses_avoided.join(", ")}` : ""].filter(Boolean).join(" · "),
    soon: CERTIFICATE_SOON_S, without: "no certificate seen yet",
  })));
  showConfiguration(shown);
  showSessions(sessions);
}

function unhealthyRoutes(status) {
  return status.routes.filter((route) => ["bad", "warn"].includes(KIND_OF_STATE[route.state]));
}

function showVerdict(status) {
  const enabled = status.routes.filter((route) => route.state !== "disabled");
  const unhealthy = unhealthyRoutes(status), verdict = byId("verdict"), rejected = status.last_reload?.result === "rejected";
  const bad = unhealthy.filter((route) => KIND_OF_STATE[route.state] === "bad");
  const lines = [];
  if (status.is_draining) lines.push(["", "The agent is stopping: it accepts no new sessions, and waits for the open ones to end."]);
  if (rejected) lines.push(["configuration", firstOf(status.last_reload.problems)]);
  status.credentials.filter((credential) => credential.problem).forEach((credential) => lines.push([credential.name, credential.problem]));
  const states = [...new Set(bad.map((route) => route.state))];
  states.forEach((state) => lines.push([state, namesOf(bad.filter((route) => route.state === state))]));
  const summary = unhealthy.length ? `${unhealthy.length} of ${many(enabled.length, "route")} ${unhealthy.length === 1 ? "needs" : "need"} attention`
    : !enabled.length ? "No routes are configured"
    : enabled.some((route) => route.state === "untried") ? `${many(enabled.length, "route")}, no problems`
    : enabled.length === 1 ? "The route is up" : `All ${enabled.length.toLocaleString("en")} routes are up`;
  const title = status.is_draining ? "Draining" : rejected ? `${summary}; the last edit was rejected` : summary;
  setClass(verdict, `verdict ${bad.length ? "bad" : unhealthy.length || rejected || lines.length ? "warn" : ""}`.trim());
  const wanted = JSON.stringify([title, lines, bad.length]);
  if (verdict.shownValue !== wanted) {
    verdict.shownValue = wanted;
    const items = lines.map(([name, text]) => make("li", "", make("b", "", name ? `${name}: ` : ""), text));
    verdict.replaceChildren(make("p", "", title), ...(items.length ? [make("ul", "", ...items)] : []));
  }
  document.title = unhealthy.length ? `(${unhealthy.length}) pomagent` : "pomagent";
  const colour = bad.length ? "%23d0342c" : unhealthy.length || rejected ? "%23d08a00" : "%231a9955";
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
  tile("routes", "Healthy routes", null);
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
  figure(tiles.routes.value, String(enabled.length - unhealthyRoutes(status).length), ` of ${enabled.length.toLocaleString("en")}`);
  setText(tiles.pools, `${warm.toLocaleString("en")} of ${target.toLocaleString("en")} tunnels warm`);
  reconcile(tiles.share, WORST_FIRST, (kind) => kind, (kind) => ({ elements: [make("i", kind)] }), ({ elements: [part] }, kind) => {
    const count = enabled.filter((route) => KIND_OF_STATE[route.state] === kind).length;
    part.hidden = !count;
    part.style.flexGrow = count;
  });
  figure(tiles.sessions.value, status.sessions.toLocaleString("en"), "");
  figure(tiles.down.value, bytes(totals.down.values.at(-1) ?? 0), "/s");
  figure(tiles.up.value, bytes(totals.up.values.at(-1) ?? 0), "/s");
  figure(tiles.wait.value, milliseconds(wait), wait === null ? "" : " on average");
  for (const name of ["sessions", "down", "up", "wait"]) tiles[name].curve.show([totals[name].values], SAMPLES_KEPT);
}

function figure(element, value, unit) {
  if (element.shownValue === value + unit) return;
  element.shownValue = value + unit;
  element.replaceChildren(value, make("small", "", unit));
}

function showEvents(events) {
  const list = byId("events");
  reconcile(list, events, (event) => `${event.event} ${event.at}`, (event) => {
    const what = make("span", "head"), when = make("time", "quiet"), text = make("p");
    when.dateTime = event.at;
    when.title = clock(event.at);
    return { elements: [make("li", event.level, what, when, text)], what, when, text };
  }, (made, event) => {
    const about = event.fields.route ?? event.fields.gateway ?? event.fields.credential ?? "";
    setText(made.what, `${event.event}${about ? ` · ${about}` : ""}${event.count > 1 ? ` × ${event.count}` : ""}`);
    setText(made.when, `${duration((Date.now() - Date.parse(event.at)) / 1000)} ago`);
    setText(made.text, sentence(event.fields));
  });
}

/** An event as a sentence: its error or problems if it has any, else its fields. */
function sentence(fields) {
  const own = fields.error ?? fields.warning;
  if (Array.isArray(fields.problems)) return fields.problems.join("\n");
  if (own) return fields.user || fields.uid !== undefined && fields.uid !== null ? `${fields.user ?? `uid ${fields.uid}`}: ${own}` : own;
  const skip = new Set(["route", "gateway", "credential"]);
  return Object.entries(fields).filter(([name, value]) => !skip.has(name) && value !== null && value !== "")
    .map(([name, value]) => `${name.replaceAll("_", " ")}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ");
}

function showExpiring(list, items) {
  reconcile(list, items, (item) => item.name, (item) => {
    const name = make("b", "", item.name), left = make("span", "left"), about = make("div", "quiet"), problem = make("div"), note = make("div", "quiet");
    return { elements: [make("li", "card", make("div", "line", name, left), about, problem, note)], left, about, problem, note };
  }, (made, item) => {
    const seconds = item.until === null ? null : (Date.parse(item.until) - Date.now()) / 1000;
    const kind = item.problem || (seconds !== null && seconds <= 0) ? "bad" : seconds !== null && seconds < item.soon ? "warn" : "";
    setClass(made.elements[0], `card ${kind}`.trim());
    setText(made.left, seconds === null ? item.without : seconds > 0 ? `${duration(seconds)} left` : `expired ${duration(-seconds)} ago`);
    setText(made.about, item.until ? `${item.about} · until ${clock(item.until)}` : item.about);
    setText(made.problem, item.problem);
    setText(made.note, item.note);
  });
  if (!items.length && !list.firstChild) list.append(make("li", "card quiet", "None in use"));
}

function showConfiguration(status) {
  const last = status.last_reload, problems = last?.problems ?? [];
  const wanted = JSON.stringify([status.config, last, status.generation]);
  const place = byId("configuration");
  if (place.shownValue === wanted) return;
  place.shownValue = wanted;
  const kind = last?.result === "rejected" ? "card bad" : "card";
  const result = !last ? "not reloaded since the start" : last.result === "rejected" ? "last edit rejected" : `last edit ${last.result}`;
  const list = problems.length ? [make("ul", "", ...problems.map((problem) => make("li", "", problem)))] : [];
  place.replaceChildren(make("div", kind, make("div", "line", make("b", "mono", status.config.path), make("span", "left", result)),
    make("div", "quiet", `version ${status.config.sha}, generation ${status.generation}${last ? ` · ${clock(last.at)}` : ""}`), ...list));
}

function showSessions(list) {
  const rows = byId("sessions");
  reconcile(rows, list.sessions, (session) => session.session, (session) => {
    const cells = Array.from({ length: 9 }, (_, at) => make("td", [0, 4, 5, 6, 7].includes(at) ? "number" : at === 8 ? "mono" : ""));
    return { elements: [make("tr", "", ...cells)], cells };
  }, ({ cells }, session) => [
    session.session, session.route, session.peer, session.user ?? (session.uid === null ? "unknown" : `uid ${session.uid}`), duration(session.age_s),
    session.waited_ms === null ? "waiting" : milliseconds(session.waited_ms), bytes(session.bytes_up), bytes(session.bytes_down), session.request_id,
  ].forEach((text, at) => setText(cells[at], text)));
  setText(byId("more-sessions"), !list.total ? "No running sessions." : list.total > list.sessions.length ? `Showing the newest ${list.sessions.length} of ${list.total.toLocaleString("en")} sessions.` : "");
}

function showLive() {
  const live = byId("live"), late = refreshedAt ? ` · last update ${new Date(refreshedAt).toLocaleTimeString()}` : "";
  setClass(live, failure ? "live lost" : "live");
  setText(live, failure ? `${failure}${late}` : "live");
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
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
