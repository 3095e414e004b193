"""The browser tracker in a real Chromium, against a collector that fails on command.

Pages and collector have different origins, as they do in the wild. Waiting is for conditions, with limits; the
tracker's own times (a second of idling, pauses) pass for real.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from playwright.async_api import BrowserContext, Page, async_playwright

from tests.standin import Collector, Plan, running
from tracardi_lite.testing.clock import eventually
from tracardi_lite.tracker import asset

pytestmark = pytest.mark.integration

SNIPPET = """
  window.tracker = { q: [], track(...event) { this.q.push(event); } };
  window.onTracardiReady = { q: [], bind(...work) { this.q.push(work); } };
"""
QUEUED = "Object.keys(localStorage).filter((key) => key.startsWith('tracardi-lite:')).length"

# What the original's inline loader does, in our words: queue, load <script url>/liliput.min.js when the document is
# ready, then hand over what it queued.
LOADER = """
  window.tracardi = {};
  window.response = { context: {} };
  const listeners = [], calls = [];
  window.onTracardiReady = {
    bind: (work) => { listeners.push(work); },
    call: (params) => listeners.forEach((work) => work(params)),
  };
  window.tracker = { track: (...args) => { calls.push(args); return window.tracker; } };
  document.addEventListener("DOMContentLoaded", () => {
    const script = document.createElement("script");
    script.async = true;
    script.src = options.tracker.url.script + "/liliput.min.js";
    script.addEventListener("load", () => {
      if (!window.tracardi.default.getState().plugins["tracardi"].initialized) throw new Error("not initialized");
      window.tracker = window.tracardi.default;
      while (calls.length) window.tracker.track(...calls.shift());
    });
    const first = document.getElementsByTagName("script")[0];
    first.parentNode.insertBefore(script, first);
  });
"""


class Shop(Collector):
    """Serves the tracker, and the pages that a test puts into it."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[str, str] = {}
        self.when: list[float] = []

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/tracker/{name}", self._asset)
        app.router.add_get("/{page}", self._page)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.when.append(time.monotonic())
        return await super()._answer(request)

    async def _asset(self, request: web.Request) -> web.Response:
        found = asset(request.match_info["name"])
        assert found is not None
        content, kind, tag = found
        return web.Response(body=content, headers={"Content-Type": kind, "ETag": tag})

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=self.pages.get(request.match_info["page"], ""), content_type="text/html")


@dataclass
class World:
    """A site, a collector of another origin, and a browser's profile."""

    collector: Shop
    site: Shop
    context: BrowserContext
    said: list[str] = field(default_factory=list)

    async def open(
        self,
        events: str = "",
        *,
        options: str = "",
        tail: str = "",
        query: str = "",
        name: str = "shop",
        body: str | None = None,
        settled: bool = True,
    ) -> Page:
        """A page with our snippet; ``options`` is JavaScript that may change ``options.tracker``."""
        script = f"{self.collector.url}/tracker/tracardi-lite.js"
        self.site.pages[name] = (
            body
            or f"""<!doctype html><title>Shop</title>
            <script>
              const options = {{ tracker: {{ url: {{ api: "{self.collector.url}" }}, source: {{ id: "default" }} }} }};
              {options}; {SNIPPET} {events}
            </script>
            <script async src="{script}"></script><h1>Shop</h1>{tail}"""
        )
        page = await self.context.new_page()
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("console", lambda message: self.said.append(message.text))
        await page.goto(f"{self.site.url}/{name}{query}")
        if settled:
            await page.wait_for_function("window.tracardi && window.tracardi.lite")
        return page

    async def events(self, count: int, limit_s: float = 10) -> list[dict[str, Any]]:
        await eventually(lambda: len(self.collector.taken) >= count, limit_s, f"{count} events; {self.collector.types}")
        return list(self.collector.taken.values())

    async def cookies(self) -> dict[str, str]:
        return {cookie["name"]: cookie["value"] for cookie in await self.context.cookies()}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    chromium = shutil.which("chromium")
    assert chromium, "these tests need Chromium: apt-get install chromium"
    async with running(Shop()) as collector, running(Shop()) as site, async_playwright() as playwright:
        assert isinstance(collector, Shop)
        assert isinstance(site, Shop)
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            world = World(collector, site, await browser.new_context())
            yield world
            assert not [line for line in world.said if line.startswith("error:")]
        finally:
            await browser.close()


async def test_all_events_of_a_page_go_as_one_call_without_a_preflight(world: World) -> None:
    await world.open(
        """window.tracker.track("page-view", {"n": 1});
           window.tracker.track("purchase", {"n": 2}, {"saveEvent": false, "context": {"shop": "a"}});
           window.tracker.track("interest");"""
    )
    await world.events(3)

    (call,) = world.collector.calls
    (headers,) = world.collector.headers
    assert world.collector.methods == {"POST": 1}
    assert "Content-Type" not in headers
    assert "Cookie" not in headers
    assert call["source"] == {"id": "default"}
    assert call["profile"] is None
    cookies = await world.cookies()
    assert call["session"]["id"] == cookies["tracardi-session-id"]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", call["session"]["id"])
    assert call["device"]["id"]
    assert call["options"] == {}
    assert set(call["context"]) == {"time", "browser", "screen"}
    assert "HeadlessChrome" in call["context"]["browser"]["local"]["browser"]["userAgent"]
    assert call["context"]["screen"]["local"]["width"] > 0
    first, second, third = call["events"]
    assert [event["type"] for event in call["events"]] == ["page-view", "purchase", "interest"]
    assert len({event["id"] for event in call["events"]}) == 3
    assert first["properties"] == {"n": 1}
    assert first["context"]["page"]["title"] == "Shop"
    assert first["context"]["page"]["url"] == f"{world.site.url}/shop"
    assert "options" not in first
    assert second["options"] == {"saveEvent": False}
    assert second["context"]["shop"] == "a"
    assert third["properties"] == {}
    assert third["time"]["create"].endswith("Z")


async def test_the_profile_id_is_kept_and_sent_with_the_next_call(world: World) -> None:
    page = await world.open("window.tracker.track('page-view');")
    await world.events(1)
    await page.wait_for_function("localStorage.getItem('tracardi-profile-id')")
    session = world.collector.calls[0]["session"]["id"]
    assert await page.evaluate("localStorage.getItem('tracardi-profile-id')") == f'"profile-of-{session}"'
    assert await page.evaluate("localStorage.getItem('__tr_pid')") == f'"profile-of-{session}"'

    await page.evaluate("window.tracker.track('later')")
    await world.events(2)
    assert world.collector.calls[1]["profile"] == {"id": f"profile-of-{session}"}
    assert world.collector.calls[1]["session"] == {"id": session}
    assert world.collector.calls[1]["device"] == world.collector.calls[0]["device"]


async def test_later_events_are_bulked_too_by_number_and_by_idling(world: World) -> None:
    page = await world.open("window.tracker.track('page-view');")
    await world.events(1)
    await page.wait_for_function(f"{QUEUED} === 0")
    await page.evaluate("for (let n = 0; n < 45; n++) window.tracker.track('step', {n});")
    events = await world.events(46)

    assert [event["properties"]["n"] for event in events[1:]] == list(range(45))
    assert [len(call["events"]) for call in world.collector.calls] == [1, 20, 20, 5]


async def test_fired_events_go_at_once_and_give_the_answer(world: World) -> None:
    page = await world.open("window.tracker.track('page-view');")
    await world.events(1)
    await page.wait_for_function(f"{QUEUED} === 0")

    answer = await page.evaluate(
        """async () => {
          const response = await window.tracker.plugins.tracardi.track("click", {"button": 1});
          return [response.status, response.data.session.id];
        }"""
    )

    assert answer == [200, world.collector.calls[0]["session"]["id"]]
    assert world.collector.types == ["page-view", "click"]
    assert "options" not in world.collector.calls[1]["events"][0]


async def test_leaving_the_page_loses_nothing(world: World) -> None:
    world.site.pages["next"] = "<h1>Next</h1>"
    page = await world.open("window.tracker.track('page-view');")
    await world.events(1)
    await page.wait_for_function(f"{QUEUED} === 0")

    await page.evaluate("window.tracker.track('leaving', {}); location.href = '/next'")
    await page.wait_for_url("**/next")
    await world.events(2)
    assert world.collector.types == ["page-view", "leaving"]


async def test_closing_the_tab_loses_nothing(world: World) -> None:
    page = await world.open("window.tracker.track('page-view');")
    await world.events(1)
    await page.wait_for_function(f"{QUEUED} === 0")
    await page.evaluate("window.tracker.track('leaving', {})")
    await page.close(run_before_unload=True)
    await world.events(2)


async def test_a_page_that_goes_while_the_server_is_away_leaves_its_events_to_the_next(world: World) -> None:
    world.collector.plan_all = Plan(status=503)
    page = await world.open("window.tracker.track('page-view');")
    await eventually(lambda: len(world.collector.calls) >= 1)
    await page.evaluate("window.tracker.track('leaving', {})")
    await page.close(run_before_unload=True)
    world.collector.plan_all = None

    page = await world.open("window.tracker.track('next-page');", name="next")
    events = await world.events(3)
    assert [event["type"] for event in events] == ["page-view", "leaving", "next-page"]
    assert [event["context"]["page"]["path"] for event in events] == ["/shop", "/shop", "/next"]
    await page.wait_for_function(f"{QUEUED} === 0")


async def test_a_hidden_page_does_not_repeat_a_call_whose_answer_takes_long(world: World) -> None:
    page = await world.open("window.tracker.track('page-view');")
    await world.events(1)
    await page.wait_for_function(f"{QUEUED} === 0")
    world.collector.gate.clear()
    await page.evaluate(
        """window.tracker.track('hidden-soon');
           Object.defineProperty(document, "visibilityState", { value: "hidden" });
           document.dispatchEvent(new Event("visibilitychange"));
           setTimeout(() => { window.patient = true }, 4000);"""
    )
    await eventually(lambda: len(world.collector.calls) == 2)
    await page.wait_for_function("window.patient")
    await page.evaluate("window.tracker.flush()")
    world.collector.gate.set()
    await world.events(2)
    await page.wait_for_function(f"{QUEUED} === 0")
    assert set(world.collector.seen.values()) == {1}


async def test_offline_and_back(world: World) -> None:
    page = await world.open("window.tracker.track('page-view');")
    await world.events(1)
    await world.context.set_offline(True)
    await page.evaluate("for (let n = 0; n < 3; n++) window.tracker.track('offline', {n}, {fire: true})")
    await page.wait_for_function(f"{QUEUED} === 3")
    calls = len(world.collector.calls)

    await world.context.set_offline(False)
    events = await world.events(4)
    assert [event["properties"].get("n") for event in events] == [None, 0, 1, 2]
    assert len(world.collector.calls) == calls + 3
    assert set(world.collector.seen.values()) == {1}
    await page.wait_for_function(f"{QUEUED} === 0")


async def test_what_was_tracked_offline_survives_the_tab(world: World) -> None:
    page = await world.open("window.tracker.track('page-view');")
    await world.events(1)
    await world.context.set_offline(True)
    await page.evaluate("window.tracker.track('offline', {}, {fire: true})")
    await page.wait_for_function(f"{QUEUED} === 1")
    await page.close()
    await world.context.set_offline(False)

    await world.open(name="next")
    await world.events(2)
    assert world.collector.types == ["page-view", "offline"]


async def test_a_full_server_is_given_the_time_it_asks_for(world: World) -> None:
    world.collector.plans = [
        Plan(status=503, headers={"Retry-After": "2"}),
        Plan(status=429, headers={"Retry-After": "1"}),
    ]
    page = await world.open("window.tracker.track('page-view');")
    await eventually(lambda: len(world.collector.calls) == 1)
    await page.evaluate("window.tracker.track('held-back', {}, {fire: true})")
    events = await world.events(2)

    assert [event["type"] for event in events] == ["page-view", "held-back"], "in order"
    first, second, third, _ = world.collector.when
    assert second - first >= 2
    assert third - second >= 1
    ids = {call["events"][0]["id"] for call in world.collector.calls[:3]}
    assert len(ids) == 1


async def test_an_answer_that_was_lost_counts_once(world: World) -> None:
    world.collector.plans = [Plan(take=True, drop=True), Plan(take=True, status=502)]
    page = await world.open("window.tracker.track('page-view');")
    await page.wait_for_function(
        f"window.tracardi && {QUEUED} === 0 && localStorage.getItem('tracardi-profile-id')", timeout=15000
    )

    assert len(world.collector.taken) == 1
    assert sum(world.collector.seen.values()) >= 3


async def test_two_tabs_send_what_is_stored_once(world: World) -> None:
    one = await world.open("window.tracker.track('page-view');")
    await world.events(1)
    two = await world.open(name="two")
    await world.context.set_offline(True)
    for page in (one, two):
        await page.evaluate("for (let n = 0; n < 5; n++) window.tracker.track('offline', {n}, {fire: true})")
    await one.wait_for_function(f"{QUEUED} === 10")

    await world.context.set_offline(False)
    await world.events(11)
    await one.wait_for_function(f"{QUEUED} === 0")
    # Mostly once. Of two tabs' processes, one may see the other's claim late, lock or no lock: then an event comes
    # twice, with the same id, which the collector counts once.
    assert len(world.collector.taken) == len(world.collector.seen) == 11
    assert max(world.collector.seen.values()) <= 2
    assert len({call["session"]["id"] for call in world.collector.calls}) == 1


async def test_after_a_merge_the_answered_profile_id_is_kept(world: World) -> None:
    page = await world.open("window.tracker.track('page-view');")
    await world.events(1)
    await page.wait_for_function("localStorage.getItem('tracardi-profile-id')")
    old = f"profile-of-{world.collector.calls[0]['session']['id']}"
    world.collector.merge(old, "survivor")

    await page.evaluate("window.tracker.track('identified', {}, {fire: true})")
    await page.wait_for_function("localStorage.getItem('tracardi-profile-id') === '\"survivor\"'")
    assert await page.evaluate("localStorage.getItem('__tr_pid')") == f'"{old}"'
    assert await page.evaluate("localStorage.getItem('__tr_id')") == '"survivor"'

    await world.open("window.tracker.track('next-page');", name="next")
    await world.events(3)
    assert world.collector.calls[-1]["profile"] == {"id": "survivor"}


async def test_do_not_track_is_respected_when_told_to(world: World) -> None:
    await world.context.add_init_script("Object.defineProperty(navigator, 'doNotTrack', {value: '1'})")
    page = await world.open(
        "window.tracker.track('page-view');", options="options.tracker.settings = { respectDoNotTrack: true }"
    )
    await page.evaluate("window.tracker.track('later', {}, {fire: true})")
    await page.evaluate("window.tracker.flush()")

    assert await page.evaluate("localStorage.length") == 0
    assert await world.cookies() == {}

    await world.open("window.tracker.track('page-view');", name="other")
    await world.events(1)
    assert len(world.collector.calls) == 1


async def test_nothing_is_kept_or_sent_before_consent(world: World) -> None:
    page = await world.open(
        "window.tracker.track('page-view');",
        options="window.agreed = false; options.tracker.settings = { consent: () => window.agreed }",
    )
    assert await page.evaluate("window.tracker.track('early', {}, {fire: true})") is None
    await page.evaluate("window.tracker.flush()")
    assert world.collector.calls == []
    assert await page.evaluate("localStorage.length") == 0
    assert await world.cookies() == {}

    await page.evaluate("window.agreed = true; window.tracker.track('agreed', {}, {fire: true})")
    await world.events(3)
    assert [event["type"] for call in world.collector.calls for event in call["events"]] == [
        "page-view",
        "early",
        "agreed",
    ]


async def test_consent_can_be_given_and_withdrawn_by_a_call(world: World) -> None:
    page = await world.open(
        "window.tracker.track('page-view');", options="options.tracker.settings = { consent: false }"
    )
    assert await page.evaluate("localStorage.length") == 0
    await page.evaluate("window.tracker.consent(true)")
    await world.events(1)
    await page.wait_for_function("localStorage.getItem('tracardi-profile-id')")

    world.collector.plan_all = Plan(status=503)
    await page.evaluate("window.tracker.track('kept-back', {}, {fire: true})")
    await page.evaluate("window.tracker.consent(false)")
    await page.evaluate("window.tracker.track('refused', {}, {fire: true})")
    world.collector.plan_all = None
    await page.evaluate("window.tracker.flush()")

    assert await page.evaluate("localStorage.length") == 0
    assert await world.cookies() == {}
    assert world.collector.types == ["page-view"]


async def test_the_originals_loader_finds_everything_it_expects(world: World) -> None:
    page = await world.open(
        body=f"""<!doctype html><title>Shop</title>
        <script>{LOADER}
          const options = {{
            listeners: {{ onInit: ({{session, helpers}}) => {{ window.inited = typeof helpers.onClick; }} }},
            tracker: {{
              url: {{ script: "{world.collector.url}/tracker", api: "{world.collector.url}" }},
              source: {{ id: "default" }},
              context: {{ browser: true, page: true, screen: false }},
              auto: {{ events: [["auto-event", {{"a": 1}}]] }},
            }} }};
        </script>
        <script>
          window.response.context.profile = true;
          window.tracker.track("page-view", {{"n": 1}});
          window.tracker.track("purchase", {{"n": 2}}, {{"async": false}});
          window.onTracardiReady.bind(({{tracker, helpers, context, config}}) => {{
            window.got = [typeof tracker.track, context.profile.id, config.tracker.source.id];
            helpers.onClick(document.querySelector("button"), () => helpers.track("clicked", {{}}));
          }});
        </script><button>Buy</button>"""
    )
    await world.events(3)
    (call,) = world.collector.calls
    assert [event["type"] for event in call["events"]] == ["auto-event", "page-view", "purchase"]
    assert call["options"] == {"profile": True}
    assert "screen" not in call["context"]
    await page.wait_for_function("window.got")
    assert await page.evaluate("window.got") == ["function", f"profile-of-{call['session']['id']}", "default"]
    assert await page.evaluate("window.inited") == "function"

    await page.click("button")
    await world.events(4)
    assert world.collector.types[-1] == "clicked"


async def test_one_script_tag_is_enough(world: World) -> None:
    await world.open(
        body=f"""<script src="{world.collector.url}/tracker/tracardi-lite.js" data-source="default"></script>
        <script>window.tracker.track("page-view", {{}})</script>"""
    )
    await world.events(1)
    assert world.collector.calls[0]["source"] == {"id": "default"}


async def test_options_may_come_after_the_script(world: World) -> None:
    await world.open(
        body=f"""<script src="{world.collector.url}/tracker/tracardi-lite.js"></script>
        <script>window.tracker.track("page-view", {{}});
          const options = {{ tracker: {{ source: {{ id: "late" }} }} }};</script>"""
    )
    await world.events(1)
    assert world.collector.calls[0]["source"] == {"id": "late"}


async def test_campaign_and_cross_domain_parameters_are_passed_on(world: World) -> None:
    await world.open(
        "window.tracker.track('page-view')", query="?utm_source=mail&utm_term=a+b&__tr_pid=p-9&__tr_src=s-9"
    )
    await world.events(1)
    context = world.collector.calls[0]["context"]
    assert context["utm"] == {"source": "mail", "term": "a b"}
    assert context["tracardi"] == {"pass": {"profile": "p-9", "source": "s-9"}}


async def test_storage_cookies_and_performance_are_sent_only_when_asked_for(world: World) -> None:
    await world.open(
        "localStorage.setItem('basket', '3'); window.tracker.track('page-view')",
        options="options.tracker.context = { storage: true, cookies: true, performance: true, page: false }",
    )
    await world.events(1)
    (call,) = world.collector.calls
    assert call["context"]["storage"]["local"]["basket"] == "3"
    assert "tracardi-session-id" in call["context"]["storage"]["cookies"]
    assert "page" not in call["events"][0]["context"]
    assert call["events"][0]["context"]["performance"]["entryType"] == "navigation"


async def test_triggers_watch_elements(world: World) -> None:
    page = await world.open(
        tail="<p id='text'>Some words to select</p><div style='height:300vh'></div><footer>The end</footer>",
        options="""options.tracker.auto = { triggers: [
          { tag: "#text", trigger: "onTextSelect", data: ["text-selected", {"from": "page"}] },
          { tag: "footer", trigger: "onVisible", data: ["read-to-the-end"] },
          { tag: "h1", trigger: "onMouseOver", data: (element) => ["hovered", {"over": element.textContent}] } ] }""",
    )
    await page.hover("h1")
    await world.events(1)
    await page.dblclick("#text", position={"x": 15, "y": 8})
    await world.events(2)
    await page.evaluate("scrollTo(0, document.body.scrollHeight)")
    hovered, selected, seen = await world.events(3)
    assert (hovered["type"], hovered["properties"]) == ("hovered", {"over": "Shop"})
    assert selected["properties"]["from"] == "page"
    assert selected["properties"]["text"]
    assert seen["type"] == "read-to-the-end"


async def test_links_to_the_sites_other_domains_carry_the_profile(world: World) -> None:
    target = world.collector.url.replace("127.0.0.1", "localhost")
    page = await world.open(
        "window.tracker.track('page-view');",
        options="options.tracker.settings = { trackExternalLinks: ['localhost'] }",
        tail=f'<a id="own" href="{target}/other?x=1">Our other shop</a>',
    )
    await page.wait_for_function("localStorage.getItem('tracardi-profile-id')")
    profile = f"profile-of-{world.collector.calls[0]['session']['id']}"
    await page.click("#own")
    await page.wait_for_url(f"{target}/other?x=1&__tr_pid={profile}&__tr_src=default")


async def test_a_call_that_is_refused_is_not_repeated_and_the_page_is_told(world: World) -> None:
    world.collector.plan_all = Plan(status=401, body='{"detail": "Unknown source"}')
    page = await world.open(
        "window.tracker.track('page-view'); window.onTracardiReady.bind(({context}) => { window.got = context.detail })"
    )
    await page.wait_for_function("window.got === 'Unknown source'")
    assert await page.evaluate(QUEUED) == 0
    assert len(world.collector.calls) == 1
    assert any("refused with 401 Unknown source" in line for line in world.said)


async def test_the_page_is_told_when_the_server_is_away_and_its_mistakes_stop_nothing(world: World) -> None:
    world.collector.plans = [Plan(status=503)]
    page = await world.open(
        """window.tracker.track('page-view');
           window.onTracardiReady.bind(({context}) => context.profile.id);
           window.onTracardiReady.bind(({context}) => { window.got = [context] });"""
    )
    await page.wait_for_function("window.got && window.got[0] === null")
    await world.events(1)


async def test_some_events_refused_are_reported_and_the_rest_is_taken(world: World) -> None:
    page = await world.open("window.tracker.track('page-view'); window.tracker.track('refused')")
    await world.events(1)
    await page.wait_for_function(f"{QUEUED} === 0 && localStorage.getItem('tracardi-profile-id')")
    assert any("some events were refused" in line for line in world.said)
    assert len(world.collector.calls) == 1


async def test_a_login_page_of_a_network_is_not_taken_for_the_server(world: World) -> None:
    world.collector.plans = [Plan(status=200, body="<html>log in</html>")]
    await world.open("window.tracker.track('page-view');")
    await world.events(1)
    assert len(world.collector.calls) == 2


async def test_a_browser_that_keeps_nothing_still_tracks(world: World) -> None:
    await world.context.add_init_script(
        """Object.defineProperty(window, "localStorage", { get() { throw new DOMException("no", "SecurityError"); } });
           Object.defineProperty(document, "cookie", { get: () => "", set: () => {} });"""
    )
    world.collector.plans = [Plan(status=503)]
    page = await world.open("window.tracker.track('page-view');")
    await world.events(1)
    await page.evaluate("window.tracker.track('later', {}, {fire: true})")
    await world.events(2)
    assert len({call["session"]["id"] for call in world.collector.calls}) == 1
    assert world.collector.calls[-1]["profile"] == {"id": f"profile-of-{world.collector.calls[0]['session']['id']}"}


async def test_an_event_too_large_for_keepalive_is_sent_all_the_same(world: World) -> None:
    page = await world.open()
    await page.evaluate("window.tracker.track('large', {text: 'x'.repeat(200000)}, {fire: true})")
    (event,) = await world.events(1)
    assert len(event["properties"]["text"]) == 200_000


async def test_what_waits_is_bounded_and_the_oldest_goes(world: World) -> None:
    world.collector.plan_all = Plan(status=503, headers={"Retry-After": "3600"})
    page = await world.open("window.tracker.track('first', {}, {fire: true});")
    await eventually(lambda: len(world.collector.calls) == 1)
    await page.evaluate("for (let n = 0; n < 60; n++) window.tracker.track('step', {n}, {fire: true})")
    assert await page.evaluate(QUEUED) == 50
    assert any("the oldest events are dropped" in line for line in world.said)


async def test_a_visit_ends_after_half_an_hour_also_in_an_open_page(world: World) -> None:
    page = await world.open("window.tracker.track('page-view');")
    await world.events(1)
    (cookie,) = [cookie for cookie in await world.context.cookies() if cookie["name"] == "tracardi-session-id"]
    assert 1700 < cookie["expires"] - time.time() <= 1800
    assert cookie["sameSite"] == "Lax"
    await world.context.clear_cookies(name="tracardi-session-id")  # as the browser does by itself
    await page.evaluate("window.tracker.track('back-again', {}, {fire: true})")
    await world.events(2)
    assert len({call["session"]["id"] for call in world.collector.calls}) == 2
