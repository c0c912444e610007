"""pipelines/audit.py against a database that the test stands in for."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

import pytest
from audit import __file__ as script

KNOWN: dict[str, list[str]] = {}
"""Releases that mend the one vulnerability of a package."""


class Database(BaseHTTPRequestHandler):
    """One answer for each package."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = query["package"]["name"]
        events = [{"introduced": "0"}, *({"fixed": release} for release in KNOWN.get(name, []))]
        affected = {
            "package": query["package"],
            "ranges": [{"type": "ECOSYSTEM", "events": events}],
        }
        vulns = {"vulns": [{"id": f"TEST-{name}", "affected": [affected]}]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(vulns if name in KNOWN else {}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Database) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def audited(url: str, tmp_path, monkeypatch) -> subprocess.CompletedProcess[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where answers are kept
    command = [sys.executable, script, "--url", url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("known", "code", "said"),
    [
        ({}, 0, "audited, 0 vulnerabilities known"),
        ({"numpy": ["999.1"]}, 1, "TEST-numpy; update it to 999.1"),
        ({"numpy": []}, 0, "TEST-numpy; no release mends it yet"),
    ],
)
def test_what_is_known(known, code, said, url, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "KNOWN", known)
    done = audited(url, tmp_path, monkeypatch)
    assert said in done.stdout and done.returncode == code
    if known:
        assert f"numpy {version('numpy')}: " in done.stdout


def test_no_answer_is_no_all_clear(tmp_path, monkeypatch) -> None:
    done = audited("http://127.0.0.1:9/v1/query", tmp_path, monkeypatch)
    assert done.returncode == 3 and done.stdout == ""
    assert "nothing is audited" in done.stderr
