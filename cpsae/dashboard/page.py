"""One self-contained HTML file: a template with its styles and scripts, plotly, and the data.

Nothing that comes from a user's files is ever part of markup or of a script: what the template
shows is escaped, all else is compressed data that the scripts put on the page as text. A content
security policy lets only the scripts of this file run, by their hashes, and no request leave it.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

SCRIPTS = (
    *("data.js", "tokens.js", "export.js", "charts.js", "table.js", "feature.js"),
    *("overview.js", "app.js"),
)
MOST_BYTES = 10_000_000
_LEVEL = 9


def render(shown: Mapping[str, Any], overview: Mapping[str, Any], details: list[Any]) -> bytes:
    """The page. shown: what the template itself shows; overview: what its pictures need at once;
    details: of each run that has any, what its features are."""
    script, library = _script(), _library()
    environment = Environment(
        loader=PackageLoader("cpsae.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(
        **shown,
        policy=_policy(script, library),
        style=_resource("style.css"),
        script=script,
        library=_packed_library(),
        overview=packed(_json(overview)),
        details=[packed(_json(detail)) for detail in details],
    )
    return page.encode()


def packed(content: bytes) -> str:
    """Compressed, and in letters that mean nothing in HTML; the same for the same content."""
    return base64.b64encode(gzip.compress(content, _LEVEL, mtime=0)).decode()


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _script() -> str:
    parts = "\n".join(_resource(name) for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}\n}})();\n'


@cache
def _library() -> str:
    """plotly.js, with its licence in its first lines."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).strip()


@cache
def _packed_library() -> str:
    return packed(_library().encode())


def _resource(name: str) -> str:
    return files("cpsae.dashboard").joinpath("templates", name).read_text(encoding="utf-8")


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
