"""Draw a report's first screen, as the README's picture shows it.

cpsae report RUN --out r.html && python pipelines/report_picture.py r.html docs/images/report.png

Needs Chromium, and playwright of the extra `test`. --place "#f123" is that feature; --phone,
--dark and --height as they say.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from PIL import Image

WIDE, PHONE = (1440, 900), (390, 844)
_COLOURS = 256
"""Of the picture: as many as text and flat charts need, at a third of the size."""


def shoot(
    page_file: Path, picture: Path, place: str, phone: bool, dark: bool, height: int | None
) -> None:
    """Open the page in a window, as high as asked, wait for its charts, and save what is seen."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium here; apt-get install chromium")
    width, usual = PHONE if phone else WIDE
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium)
        context = browser.new_context(
            viewport={"width": width, "height": height or usual},
            device_scale_factor=2 if phone else 1,
            color_scheme="dark" if dark else "light",
            is_mobile=phone,
            has_touch=phone,
        )
        page = context.new_page()
        page.goto(page_file.resolve().as_uri() + place)
        page.wait_for_selector("html[data-ready]", timeout=60_000)
        page.wait_for_timeout(4000)
        raw = Path(folder) / "raw.png"
        page.screenshot(path=raw)
        browser.close()
        picture.parent.mkdir(parents=True, exist_ok=True)
        colours = Image.open(raw).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
        colours.save(picture, optimize=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--place", default="")
    parser.add_argument("--phone", action="store_true")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--height", type=int, help="of the window, in pixels")
    given = parser.parse_args()
    shoot(given.page, given.picture, given.place, given.phone, given.dark, given.height)


if __name__ == "__main__":
    main()
