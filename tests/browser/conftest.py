"""A real Chromium, and pages that must be quiet: an error in the console fails the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest_asyncio
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Frame,
    Page,
    async_playwright,
    expect,
)

from appservices.vocabulary.ids import UserId
from tests.web_stack import WebStack, running_web, web_config

CHROMIUM: Final = Path("/usr/bin/chromium")
ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
AXE: Final = Path(__file__).resolve().parents[2] / "build" / "test-assets" / "axe.min.js"
PHONE: Final = (390, 844)
DESKTOP: Final = (1200, 850)

SECONDS_MAX: Final = 60
"""For a step of a page, on a machine that does much else: only what never comes about takes it."""
expect.set_options(timeout=SECONDS_MAX * 1000)

OpenPage = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def stack(tmp_path: Path) -> AsyncIterator[WebStack]:
    async with running_web(web_config(tmp_path)) as stack:
        yield stack


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """One for all tests, which therefore share an event loop; each opens profiles of its own."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(chromium: Browser) -> AsyncIterator[OpenPage]:
    """Opens a page in a browser profile of its own: `open_page(size=PHONE, dark=True, script=False)`."""
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    def listen(message: ConsoleMessage) -> None:
        # Refused forms, cut connections and forbidden framing are what some tests are about.
        expected = message.text.startswith(
            ("Failed to load resource", "htmx:", "Response Status", "Framing ")
        )
        if message.type == "error" and not expected:
            complaints.append(message.text)

    async def open_page(*, size: tuple[int, int] = PHONE, dark: bool = False, script: bool = True) -> Page:
        context = await chromium.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
        )
        contexts.append(context)
        context.set_default_timeout(SECONDS_MAX * 1000)
        page = await context.new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert complaints == []


async def sign_in(page: Page, stack: WebStack, user: UserId) -> None:
    """Gives the browser a session, as signing in does."""
    began = await stack.session(user, user_agent="Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0")
    await page.context.add_cookies(
        [{"name": f"weft_session_{stack.config.web.port}", "value": began.token, "url": stack.url}]
    )


async def serious_findings(page: Page | Frame) -> list[str]:
    """What axe-core finds serious or critical on the page as it stands."""
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    findings: list[str] = await page.evaluate(
        """async () => {
            const result = await axe.run(document, { resultTypes: ["violations"] });
            return result.violations
                .filter((found) => ["serious", "critical"].includes(found.impact))
                .flatMap((found) => found.nodes.map((node) => `${found.id}: ${node.html}`));
        }"""
    )
    return findings


async def is_wider_than_its_window(page: Page) -> bool:
    """Whether the page scrolls sideways."""
    wider: bool = await page.evaluate(
        "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    )
    return wider
