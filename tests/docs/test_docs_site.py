"""The site builds without a warning, asks nothing of the network, and has every page."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from doc_blocks import ROOT

import cpsae
from cpsae.cli.main import _COMMANDS


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


class Sources(HTMLParser):
    """What a page fetches by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") != "canonical":
            self.found.append(given.get("href") or "")


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        sources = Sources()
        sources.feed(page.read_text(encoding="utf-8"))
        assert not [url for url in sources.found if re.match(r"(https?:)?//", url)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text()), style


def test_every_page_is_there_and_in_the_navigation(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    for page in [*(ROOT / "docs").glob("*.md"), Path("commands.md"), Path("tutorial.md")]:
        name = f"{page.stem}.html"
        assert (site / name).is_file()
        assert f'href="{name}"' in start or name == "index.html"
    assert (site / "decisions/0001-bfloat16-in-zarr.html").is_file()


def test_every_command_and_every_public_name_has_its_place(site: Path) -> None:
    commands = (site / "commands.html").read_text(encoding="utf-8")
    for name in _COMMANDS:
        assert f'id="{name}"' in commands and f"Usage: cpsae {name}" in commands
    api = (site / "api.html").read_text(encoding="utf-8")
    for name in set(cpsae.__all__) - {"__version__"}:
        home = "cpsae.errors" if name == "CpsaeError" else "cpsae"
        assert f'id="{home}.{name}"' in api, name


def test_the_tutorial_shows_what_it_printed_and_drew(site: Path) -> None:
    page = (site / "tutorial.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == 3
    assert "the strongest features of each" in page
