// tracardi-lite.js: the browser tracker. Plain source, no build, no dependencies. Docs: docs/tracker.md.
//
// Life of an event: track() → pending (memory) → sealed into a parcel (localStorage, one key each, with its session
// and context) → POST /track → removed when the server has answered for good. A parcel outlives its page, so a
// navigation, a dead network or a 503 loses nothing; event ids are made here, so sending a parcel twice counts once.
//
// Bounds: PENDING_MAX events waiting for consent, PARCELS_MAX parcels of PARCEL_EVENTS_MAX events kept for AGE_MAX_MS, one
// call at a time per tab (but for the last words of a page), pauses with jitter between tries, never below Retry-After.
//
// The server sends this file without its comments and indentation: a comment stands on lines of its own, and no
// string spans lines.
(function () {
  "use strict";
  if (window.tracardi && window.tracardi.lite) return;

  const PARCEL_EVENTS_MAX = 20;
  const IDLE_MS = 1000;
  const FIRST_MS = 50;
  const PENDING_MAX = 200;
  const PARCELS_MAX = 50;
  const AGE_MAX_MS = 7 * 86400e3;
  const TIMEOUT_MS = 20e3;
  const LEASE_MS = TIMEOUT_MS + 5e3;
  const LEAVING_MS = 3e3;
  const PAUSE_MS = 1000;
  const PAUSE_MAX_MS = 300e3;
  const RETRY_AFTER_MAX_MS = 3600e3;
  const KEEPALIVE_MAX = 60e3;
  const VISIT_S = 1800;
  const PARCEL = "tracardi-lite:";

  const script = document.currentScript;
  const warn = (...words) => console.warn("[tracardi-lite]", ...words);
  const safely = (work, otherwise) => {
    try {
      return work();
    } catch {
      return otherwise;
    }
  };
  // What the page's own functions throw is shown, and stops nothing of ours.
  const call = (work, ...args) => {
    try {
      work(...args);
    } catch (error) {
      console.error(error);
    }
  };

  // crypto.randomUUID is missing on plain http, so the UUID (version 4) is put together by hand.
  const uuid = () => {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 15) | 64;
    bytes[8] = (bytes[8] & 63) | 128;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  };

  // --- what the browser keeps for us; in memory where it refuses ---

  const memory = new Map();
  const store = {
    get: (key) => memory.get(key) ?? safely(() => localStorage.getItem(key), null),
    set: (key, value) => safely(() => (localStorage.setItem(key, value), memory.delete(key), true)) || memory.set(key, value),
    drop: (key) => (memory.delete(key), safely(() => localStorage.removeItem(key))),
    keys: () => [...new Set([...safely(() => Object.keys(localStorage), []), ...memory.keys()])],
  };
  const read = (key) => safely(() => JSON.parse(store.get(key)), store.get(key));
  const write = (key, value) => store.set(key, JSON.stringify(value));

  const cookie = (name) => {
    const found = document.cookie.split("; ").find((part) => part.startsWith(name + "="));
    return found && safely(() => decodeURIComponent(found.slice(name.length + 1)));
  };
  const setCookie = (name, value, seconds) => {
    document.cookie = `${name}=${encodeURIComponent(value)}; path=/; max-age=${seconds}; samesite=lax`;
  };

  // --- who this is ---

  const SESSION = "tracardi-session-id";
  const PROFILE = "tracardi-profile-id";
  const DEVICE = "tracardi-device-id";
  let session;
  let unkept;

  // Asked for each event: thirty minutes after the last one a new visit begins, also in a page that stayed open.
  const sessionId = () => {
    const known = cookie(SESSION) || unkept;
    session = known || uuid();
    setCookie(SESSION, session, VISIT_S);
    unkept = cookie(SESSION) ? null : session;
    if (!known) tell("onSessionSet");
    return session;
  };
  const profileId = () => read(PROFILE);
  const deviceId = () => read(DEVICE) || (write(DEVICE, uuid()), read(DEVICE));

  // The answered id is always the right one: after a merge it is the surviving profile's.
  const keepIds = (answer) => {
    const id = answer?.profile?.id;
    if (!id || id === profileId() || !consented()) return;
    write(PROFILE, id);
    const first = !read("__tr_pid");
    const name = first ? "__tr_pid" : "__tr_id";
    write(name, id);
    setCookie(name, id, VISIT_S);
  };

  // --- what the page told us ---

  let config;
  let allowed;
  const pending = [];
  const waiting = [];
  let readyWith;
  const extra = {};

  const setting = (name) => config.tracker.settings?.[name];
  const wants = (name, byDefault) => config.tracker.context?.[name] ?? byDefault;
  const tell = (name) => {
    const listener = config.listeners?.[name];
    if (typeof listener === "function") call(listener, { session: { id: session }, tracker, helpers });
  };
  const refused = () =>
    setting("respectDoNotTrack") === true && (navigator.doNotTrack === "1" || navigator.globalPrivacyControl === true);
  const consented = () => {
    const asked = setting("consent");
    return allowed ?? (typeof asked === "function" ? safely(asked, false) === true : asked !== false);
  };

  // --- what is known about the page ---

  const page = () => {
    const from = safely(() => new URL(document.referrer));
    const foreign = from && from.host !== location.host;
    return {
      url: location.href,
      path: location.pathname,
      hash: location.hash,
      title: document.title,
      referer: {
        host: foreign ? from.host : null,
        query: foreign ? from.searchParams.get("q") || from.searchParams.get("p") : null,
      },
      history: { length: history.length },
    };
  };
  const timing = () => {
    const entry = performance.getEntriesByType?.("navigation")[0];
    return entry && safely(() => entry.toJSON());
  };
  const picked = (prefix, names) => {
    const query = new URLSearchParams(location.search);
    const found = names.filter((name) => query.has(prefix + name));
    return found.length ? Object.fromEntries(found.map((name) => [name, query.get(prefix + name)])) : undefined;
  };
  const passed = () => {
    const found = picked("__tr_", ["pid", "src"]);
    return found && { pass: { profile: found.pid, source: found.src } };
  };
  const copyOf = (source, names) => Object.fromEntries(names.map((name) => [name, source[name]]));
  const browser = () => ({
    local: {
      browser: {
        name: navigator.appName,
        engine: navigator.product,
        ...copyOf(navigator, ["appVersion", "userAgent", "language", "onLine", "cookieEnabled"]),
      },
      device: { platform: navigator.platform },
    },
  });
  const display = () => ({
    local: {
      ...copyOf(screen, ["width", "height", "availWidth", "availHeight", "colorDepth", "pixelDepth"]),
      innerWidth,
      innerHeight,
      orientation: screen.orientation?.type || "n/a",
    },
  });
  // A key with the value undefined is not sent.
  const context = () => ({
    time: { local: new Date().toLocaleString(), tz: Intl.DateTimeFormat().resolvedOptions().timeZone },
    browser: wants("browser", true) ? browser() : undefined,
    screen: wants("screen", true) ? display() : undefined,
    storage:
      wants("storage") || wants("cookies")
        ? {
            local: wants("storage") ? safely(() => ({ ...localStorage })) : undefined,
            cookies: wants("cookies") ? document.cookie : undefined,
          }
        : undefined,
    utm: wants("utm", true) ? picked("utm_", ["source", "medium", "campaign", "term", "content"]) : undefined,
    tracardi: wants("tracardiPass", true) ? passed() : undefined,
    location: wants("location") ? safely(() => JSON.parse(cookie("__tr_geo"))) : undefined,
    ...extra,
  });

  // What other services say about the visitor, asked once and kept. Parcels don't wait for it.
  const fetchExtras = () => {
    const place = wants("location");
    const sources = [...(config.tracker.external || [])];
    if (place?.url) sources.push({ url: place.url, key: "location", storage: "__tr_location", data: place.data });
    for (const { url, method, body, key, storage, data } of sources) {
      const kept = read(storage);
      if (kept) extra[key] = kept;
      else
        fetch(url, { method: method || "GET", body: body && JSON.stringify(body) })
          .then((response) => response.json())
          .then((found) => write(storage, (extra[key] = data ? data(found) : found)))
          .catch((error) => warn(url, error));
    }
  };

  // --- parcels ---
  // A parcel is {b: body, t: made at, l: not before, n: failed tries, p: it failed, o: for want of a network}. `l` is the
  // lease of the tab that is sending it, or, with `p`, the pause after a failure. Keys sort by the time of making.

  const parcels = () => store.keys().filter((key) => key.startsWith(PARCEL)).sort();
  // Sealed by this page and not tried yet: only this page may send those before their lease is over.
  const fresh = new Set();
  const sending = new Set();
  const settlers = new Map();
  let draining = false;
  let again = false;
  let drainTimer;
  let idleTimer;

  // Pending events into parcels. One call has one session; events of one visit stand together, since visits follow
  // each other.
  const seal = () => {
    clearTimeout(idleTimer);
    const made = [];
    while (config && pending.length && consented()) {
      const whose = pending[0].session;
      const others = pending.findIndex((item) => item.session !== whose);
      const items = pending.splice(0, Math.min(PARCEL_EVENTS_MAX, others < 0 ? pending.length : others));
      const body = {
        source: { id: config.tracker.source.id },
        session: { id: whose },
        device: { id: deviceId() },
        context: context(),
        options: window.response.context,
        events: items.map((item) => item.event),
      };
      const key = PARCEL + Date.now().toString(36).padStart(9, "0") + made.length.toString(36) + "-" + uuid();
      write(key, { b: body, t: Date.now(), l: Date.now() + LEASE_MS, n: 0 });
      fresh.add(key);
      settlers.set(key, (answer) => items.forEach((item) => item.settle(answer)));
      made.push(key);
    }
    const surplus = made.length ? parcels().slice(0, -PARCELS_MAX) : [];
    if (surplus.length) warn("too much is waiting; the oldest events are dropped");
    surplus.forEach(forget);
    return made;
  };

  const forget = (key) => {
    store.drop(key);
    fresh.delete(key);
    settle(key, null);
  };
  const settle = (key, answer) => {
    settlers.get(key)?.(answer);
    settlers.delete(key);
  };

  const bodyOf = (parcel) => {
    const id = profileId();
    return new Blob([JSON.stringify({ ...parcel.b, profile: config.tracker.profile || (id ? { id } : null) })]);
  };

  // A body without a type has no Content-Type: the call is then a "simple" one, which needs no preflight (so the last
  // words of a page are one request, not two), and the collector reads it as JSON.
  const post = async (body) => {
    const response = await fetch(config.tracker.url.api + "/track", {
      method: "POST",
      body,
      credentials: "omit",
      keepalive: body.size < KEEPALIVE_MAX,
      signal: AbortSignal.timeout?.(TIMEOUT_MS),
    });
    response.data = await response.json().catch(() => null);
    return response;
  };

  // One try. Afterwards the parcel is gone, for good or ill, or it stays with a pause.
  const send = async (key) => {
    const parcel = read(key);
    const ours = settlers.has(key);
    fresh.delete(key);
    if (!parcel) return;
    sending.add(key);
    const response = await post(bodyOf(parcel)).catch((error) => warn("no answer:", error.message));
    sending.delete(key);
    const status = response?.status;
    // A success that is no collector's answer is somebody else's page.
    const final = response?.ok ? response.data?.profile : status < 500 && status !== 429 && status !== 408;
    if (final) {
      store.drop(key);
      if (response.ok) keepIds(response.data);
      else warn("refused with", status, response.data?.detail ?? "");
      if (response.data?.errors?.length) warn("some events were refused", response.data.errors);
    } else if (read(key)) {
      // Still there: no other tab has sent it, and consent was not withdrawn meanwhile.
      const asked = response?.headers.get("retry-after");
      const least = (asked && (Number(asked) * 1000 || new Date(asked) - Date.now())) || 0;
      const pause = Math.random() * Math.min(PAUSE_MAX_MS, PAUSE_MS * 2 ** parcel.n);
      const l = Date.now() + Math.min(RETRY_AFTER_MAX_MS, Math.max(least, pause));
      write(key, { ...parcel, l, n: parcel.n + 1, p: true, o: !status });
    }
    settle(key, final ? response : null);
    if (ours) announce(final ? response.data : null);
  };

  // The oldest parcel that may be sent now, leased to this tab, or how long to wait for one. A pause after a failure
  // holds back all that came later: the server is away.
  const claim = () => {
    let wait = Infinity;
    for (const key of parcels()) {
      if (sending.has(key)) continue;
      const parcel = read(key);
      const now = Date.now();
      if (!parcel?.b || now - parcel.t > AGE_MAX_MS) {
        forget(key);
      } else if (parcel.l <= now || fresh.has(key)) {
        write(key, { ...parcel, l: now + LEASE_MS, p: false });
        return { key };
      } else {
        wait = Math.min(wait, parcel.l - now);
        if (parcel.p) break;
      }
    }
    return { wait };
  };
  // Two tabs see the same parcels; where the browser has locks, claims seldom cross: tabs may be processes, and what one
  // writes to localStorage reaches the other a little late. Then an event is sent twice, which its id makes harmless.
  const alone = (work) => (navigator.locks ? navigator.locks.request("tracardi-lite", work).catch(work) : work());

  const drain = async () => {
    clearTimeout(drainTimer);
    again = true;
    if (draining || !config) return;
    draining = true;
    let wait = Infinity;
    while (consented()) {
      again = false;
      const next = await alone(claim);
      if (next.key) await send(next.key);
      else if (!again) {
        wait = next.wait;
        break;
      }
    }
    draining = false;
    if (wait < Infinity) drainTimer = setTimeout(drain, wait);
    if (!fresh.size) return;
    // Held back by an earlier failure: the page need not wait to be told.
    fresh.forEach((key) => settle(key, null));
    announce(null);
  };

  const flush = () => {
    seal();
    return drain();
  };

  // The page may be going: everything is stored first, then sent at once, whatever else is in flight, unless the server
  // asked for a pause. What gets no answer here is sent again by the next page, which need not wait long for it.
  const lastWords = () => {
    const made = seal();
    const paused = parcels().some((key) => ((parcel) => parcel?.p && parcel.l > Date.now())(read(key)));
    for (const key of made) {
      if (paused) continue;
      if ("keepalive" in Request.prototype) send(key).then(drain);
      else navigator.sendBeacon(config.tracker.url.api + "/track", bodyOf(read(key)));
    }
    for (const key of [...made, ...sending]) {
      fresh.delete(key);
      const parcel = read(key);
      if (parcel) write(key, { ...parcel, l: paused && made.includes(key) ? 0 : Date.now() + LEAVING_MS });
    }
  };

  // Under the lock, too: what another tab has claimed between the reading and the writing would be free again.
  const online = async () => {
    await alone(() => {
      for (const key of parcels()) {
        const parcel = read(key);
        if (parcel?.p && parcel.o) write(key, { ...parcel, l: 0, p: false });
      }
    });
    drain();
  };

  // --- the page's side ---

  const add = (type, properties, options) =>
    new Promise((settle) => {
      const { context: more, fire, asBeacon, ...kept } = options || {};
      const event = {
        id: uuid(),
        time: { create: new Date().toISOString() },
        type,
        properties: properties || {},
        options: Object.keys(kept).length ? kept : undefined,
      };
      pending.push({ event, more, settle });
      if (config) complete();
      if (pending.length > PENDING_MAX) pending.shift().settle(null);
    });

  // Events that were tracked before the options were known, or before consent, get their session and context here.
  const complete = () => {
    if (!consented()) return;
    for (const item of pending) {
      if (item.session) continue;
      item.session = sessionId();
      item.event.context = {
        page: wants("page", true) ? page() : undefined,
        performance: wants("performance") ? timing() : undefined,
        ...item.more,
      };
    }
  };

  const track = (type, properties, options) => {
    if (typeof type !== "string" || !type.trim()) {
      warn("an event needs a type");
      return Promise.resolve(null);
    }
    if (config && (refused() || allowed === false)) return Promise.resolve(null);
    const sent = add(type, properties, options);
    const now = options?.fire === true || options?.asBeacon === true;
    if (config && (now || pending.length >= PARCEL_EVENTS_MAX)) flush();
    else idle(IDLE_MS);
    return now && (!config || consented()) ? sent : Promise.resolve(null);
  };
  const idle = (ms) => {
    if (!config) return;
    clearTimeout(idleTimer);
    idleTimer = setTimeout(flush, readyWith ? ms : FIRST_MS);
  };

  const consent = (yes) => {
    allowed = yes === true;
    if (allowed) {
      if (config) {
        complete();
        flush();
      }
      return;
    }
    // Withdrawn: nothing that was not sent is sent, and nothing that tells who this is stays.
    pending.splice(0).forEach((item) => item.settle(null));
    parcels().forEach(forget);
    [PROFILE, DEVICE, "__tr_pid", "__tr_id"].forEach(store.drop);
    [SESSION, "__tr_pid", "__tr_id"].forEach((name) => setCookie(name, "", 0));
  };

  const on = (element, event, work) => {
    element.addEventListener(event, work);
    return () => element.removeEventListener(event, work);
  };
  const helpers = {
    track: (type, properties, options) => track(type, properties, { ...options, fire: true }),
    onClick: (element, work) => on(element, "click", work),
    addListener: on,
  };
  const tracker = {
    track,
    flush,
    consent,
    plugins: { tracardi: helpers },
    getState: () => ({ plugins: { tracardi: { initialized: true } } }),
    ids: () => ({ session: cookie(SESSION) || session || null, profile: profileId(), device: read(DEVICE) }),
  };

  // Once, with the first answer (null: there was none).
  const announce = (data) => {
    if (readyWith) return;
    readyWith = { tracker, helpers, context: data, config };
    waiting.forEach((work) => call(work, readyWith));
    for (const { tag, props, content } of data?.ux || []) {
      const element = document.createElement(tag);
      Object.entries(props || {}).forEach(([name, value]) => element.setAttribute(name, value));
      if (content) element.textContent = content;
      (document.body || document.documentElement).append(element);
    }
  };

  const watch = ({ tag, trigger, data }) => {
    const fire = (element, more) => {
      const [type, properties, options] = typeof data === "function" ? data(element, more) : data || [trigger];
      track(type, { ...properties, ...more }, options);
    };
    for (const element of typeof tag === "string" ? document.querySelectorAll(tag) : [tag]) {
      if (trigger === "onMouseOver") on(element, "mouseenter", () => fire(element));
      if (trigger === "onTextSelect")
        on(element, "mouseup", () => {
          const text = getSelection().toString().trim();
          if (text) fire(element, { text });
        });
      if (trigger === "onVisible")
        new IntersectionObserver((entries, observer) => {
          if (!entries.some((entry) => entry.isIntersecting)) return;
          observer.disconnect();
          fire(element);
        }).observe(element);
    }
  };

  // Links to the site's other domains carry the profile along (`tracardi.pass` over there).
  const passLinks = (domains) =>
    on(document, "click", (event) => {
      const link = event.target.closest?.("a[href]");
      const belongs = (domain) => link.hostname === domain || link.hostname.endsWith("." + domain);
      if (!link || link.host === location.host || !domains.some(belongs) || !profileId()) return;
      const url = new URL(link.href);
      url.searchParams.set("__tr_pid", profileId());
      url.searchParams.set("__tr_src", config.tracker.source.id);
      link.href = url;
    });

  const start = () => {
    // `const options` in a page's script is no property of window, but it is in scope here.
    const given = typeof options === "undefined" ? undefined : options;
    const { source, api } = script?.dataset || {};
    const found = given?.tracker ? given : source && { tracker: { source: { id: source }, url: { api } } };
    if (config || !found?.tracker?.source?.id) return;
    config = { ...found, tracker: { ...found.tracker } };
    const home = script?.src ? new URL(script.src).origin : "";
    config.tracker.url = { ...config.tracker.url, api: (config.tracker.url?.api ?? home).replace(/\/$/, "") };
    if (refused()) {
      pending.splice(0).forEach((item) => item.settle(null));
      return;
    }
    fetchExtras();
    complete();
    if (!navigator.cookieEnabled) tell("onCookiesDisabled");
    tell("onInit");
    (config.tracker.auto?.events || []).forEach((event) => track(...event));
    const triggers = () => (config.tracker.auto?.triggers || []).forEach(watch);
    if (document.readyState === "loading") on(document, "DOMContentLoaded", triggers);
    else triggers();
    if (setting("trackExternalLinks")?.length) passLinks(setting("trackExternalLinks"));
    on(document, "visibilitychange", () => document.visibilityState === "hidden" && lastWords());
    on(window, "pagehide", lastWords);
    on(window, "online", online);
    // For what earlier pages have left, and for what was tracked before this file was here.
    idle(FIRST_MS);
  };

  // --- into the page: before us may have been the original's loader, our snippet's queue, or nothing ---

  const queued = window.tracker?.q || [];
  const bound = window.onTracardiReady;
  window.response = window.response || {};
  window.response.context = window.response.context || {};
  const bind = (work) => {
    if (typeof work !== "function") return;
    if (readyWith) call(work, readyWith);
    else waiting.push(work);
  };
  (bound?.q || []).forEach((args) => bind(args[0]));
  if (bound && Object.hasOwn(bound, "call")) bind((params) => bound.call(params));
  window.onTracardiReady = { bind };
  window.tracardi = { default: tracker, lite: true };
  window.tracker = tracker;
  queued.forEach((args) => track(...args));
  start();
  // The options may come after us.
  if (!config) on(document, "DOMContentLoaded", start);
})();
