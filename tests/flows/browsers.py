"""A page in a real, headless chromium."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from playwright.sync_api import Page, expect, sync_playwright

__all__ = ["browsing", "expect"]

_LOADING_MS = 60_000
expect.set_options(timeout=_LOADING_MS)


@contextlib.contextmanager
def browsing(chromium: str, url: str) -> Iterator[Page]:
    """The page at the address. No event loop may be used within the block: playwright has one."""
    with sync_playwright() as playwright:
        # In containers, and for root, its own sandbox does not start.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1_300, "height": 1_600})
        page.set_default_timeout(_LOADING_MS)
        page.goto(url)
        yield page
        browser.close()
