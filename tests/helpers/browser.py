"""A headless Chromium, driven by Playwright, which looks at pages as a reader does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome")

Scheme = Literal["light", "dark"]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright, of the extra dev")
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"needs a browser: none of {', '.join(_NAMES)} is on the path (apt-get install chromium)")
    with sync_api.sync_playwright() as driver:
        # Chromium's own sandbox needs rights that root and containers do not have; it opens our own pages alone.
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, address: str, width: int, scheme: Scheme = "light") -> Iterator[Page]:
    """The page at `address` in a window of so many pixels; nothing may be complained of while it is open."""
    context = browser.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme)
    context.set_default_timeout(60_000)
    complaints: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("requestfailed", lambda request: complaints.append(f"request failed: {request.url[:100]}"))
    page.goto(address)
    try:
        yield page
    finally:
        context.close()
    assert not complaints
