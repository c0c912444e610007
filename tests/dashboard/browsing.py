"""A headless Chromium for the tests of the page, which hears all that goes wrong on it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str:
    """The browser of this machine. Where there is none the test is skipped, and fails where
    CPSAE_NEEDS_BROWSER says that there is to be one."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    if os.environ.get("CPSAE_NEEDS_BROWSER"):
        pytest.fail("no Chromium here, which CPSAE_NEEDS_BROWSER asks for")
    pytest.skip("no Chromium here: `apt-get install chromium` lets the page be tested")


@contextmanager
def opened(browser, file: Path, place: str = "", **options) -> Iterator:
    """The page in a window of its own. When it is closed, nothing may have been written to the
    console, no request may have left the file, and nothing may have asked for attention."""
    heard: list[str] = []
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    page = context.new_page()
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))

    def dismiss(dialog) -> None:
        heard.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", dismiss)
    page.on("request", lambda request: heard.extend([request.url] if is_outside(request) else []))
    try:
        page.goto(f"{file.as_uri()}{place}")
        page.wait_for_selector("html[data-ready]", timeout=60_000)
        yield page
        assert heard == []
    finally:
        context.close()


def is_outside(request) -> bool:
    """Whether something else than the file itself was asked for."""
    return not request.url.startswith(("file:", "data:", "blob:"))
