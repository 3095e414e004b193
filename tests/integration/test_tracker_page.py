"""The tracker's test page, served by the installed program, in a real Chromium: what its buttons send is stored."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.acceptance.program import PASSWORD, USER, Program, install

pytestmark = [pytest.mark.integration, pytest.mark.acceptance]

STORED = """async ([user, password]) => {
  const body = new URLSearchParams({ username: user, password });
  const { access_token } = await (await fetch("/user/token", { method: "POST", body })).json();
  const found = await fetch("/events/profile/" + tracker.ids().profile + "?limit=1000", {
    headers: { Authorization: "Bearer " + access_token },
  });
  const types = (await found.json()).result.map((event) => event.type);
  return types.filter((type) => !["profile-created", "session-opened", "visit-started"].includes(type)).sort();
}"""


@pytest.fixture
async def program(tmp_path: Path) -> AsyncIterator[Program]:
    data_dir = tmp_path / "data"
    install(data_dir)
    program = Program(data_dir)
    try:
        yield await program.start()
    finally:
        program.kill()
        print(program.log())


@pytest.fixture
async def page(program: Program) -> AsyncIterator[Page]:
    chromium = shutil.which("chromium")
    assert chromium, "these tests need Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = await browser.new_page(viewport={"width": 390, "height": 800})
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            await page.goto(f"{program.base}/tracker/")
            yield page
            assert errors == []
        finally:
            await browser.close()


@asynccontextmanager
async def timers_held(page: Page) -> AsyncIterator[None]:
    """No timer of the page fires meanwhile; to hold them, its clock jumps on to a time of its own."""
    await page.clock.install()
    await page.clock.pause_at(datetime.now() + timedelta(hours=1))
    yield
    await page.clock.resume()


async def test_what_the_pages_buttons_send_is_stored_under_one_profile(page: Page) -> None:
    calls = page.locator("#log details")
    async with timers_held(page):  # or the first call leaves between the two clicks when the machine is slow
        await page.get_by_role("button", name="Page view").click()
        await page.get_by_role("button", name="Purchase").click()
    await expect(calls).to_have_count(1)
    await expect(calls.locator(".types")).to_have_text("2 events: page-view, purchase-order")
    await expect(calls.locator(".good")).to_have_text("200")
    await expect(page.locator("#profile")).not_to_have_text("–")

    await page.get_by_role("button", name="25 events").click()
    await expect(calls).to_have_count(3)
    await page.get_by_role("button", name="A refused one").click()
    await expect(calls.locator(".part")).to_have_text("226")
    await expect(page.locator("#waiting")).to_have_text("0 calls")

    expected = sorted(["page-view", "purchase-order", "page-view", *["burst"] * 25])
    await page.wait_for_function(
        f"async (given) => JSON.stringify(await ({STORED})(given.slice(0, 2))) === given[2]",
        arg=[USER, PASSWORD, '["' + '","'.join(expected) + '"]'],
        polling=200,
        timeout=20_000,
    )


async def test_a_new_visitor_is_another_profile(page: Page) -> None:
    await page.get_by_role("button", name="At once").click()
    profile = page.locator("#profile")
    await expect(profile).not_to_have_text("–")
    first = await profile.inner_text()

    await page.get_by_role("button", name="New visitor").click()
    await expect(profile).to_have_text("–")
    await page.get_by_role("button", name="At once").click()
    await expect(profile).not_to_have_text("–")
    await expect(profile).not_to_have_text(first)


async def test_the_page_fits_a_phone(page: Page) -> None:
    await page.get_by_role("button", name="At once").click()
    await page.locator("#log summary").first.click()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_the_snippet_names_this_server_and_the_chosen_source(page: Page, program: Program) -> None:
    await page.get_by_label("Event source").fill("my-shop")
    snippet = await page.locator("#snippet").inner_text()
    assert f'url: {{ api: "{program.base}" }}' in snippet
    assert 'source: { id: "my-shop" }' in snippet
    assert f'<script async src="{program.base}/tracker/tracardi-lite.js"></script>' in snippet
