"""A hub on this machine: the few requests that an upload makes, and what arrived."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml


class Hub(ThreadingHTTPServer):
    """`commits` holds {path: bytes} each; a file above `regular` bytes goes through LFS."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.commits: list[dict] = []
        self.messages: list[str] = []
        self.lfs: dict[str, bytes] = {}
        self.repos: dict[str, bool] = {}
        self.tokens: set[str] = set()
        self.refusals: dict[str, int] = {}
        """What a request whose path has this in it is answered with."""
        self.regular = 2000


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments) -> None:
        """Quiet."""

    def _answer(self, content, status=200, **headers) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refused(self) -> bool:
        self.server.tokens.add(self.headers.get("Authorization", ""))
        for part, status in self.server.refusals.items():
            if part in self.path:
                self._body()
                self._answer({"error": "no"}, status)
                return True
        return False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        if self._refused():
            return
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repo = "/".join(parts[2:4])
            private = self.server.repos[repo]
            self._answer({"id": repo, "modelId": repo, "private": private, "sha": "0" * 40})
        elif "resolve" in parts:
            name = "/".join(parts[4:])
            there = any(name in commit for commit in self.server.commits)
            self._answer({}, 200 if there else 404, **({} if there else _MISSING))
        else:
            self._answer({"error": self.path}, 404)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        if self._refused():
            return
        content = self._body()
        assert hashlib.sha256(content).hexdigest() == self.path.rsplit("/", 1)[1]
        self.server.lfs[self.path.rsplit("/", 1)[1]] = content
        self._answer(b"")

    def do_POST(self) -> None:
        if self._refused():
            return
        body = self._body()
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.server.repos:
                self._answer({"url": f"{self.server.url}/{name}"}, 409)
                return
            private = asked.get("private") or asked.get("visibility") == "private"
            self.server.repos[name] = bool(private)
            self._answer({"url": f"{self.server.url}/{name}"})
        elif self.path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            assert text.startswith("---\n") and isinstance(
                yaml.safe_load(text.split("---\n")[1]), dict
            )
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] > self.server.regular else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            self._answer({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.url}/put/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._answer({"error": self.path}, 404)

    def _commit(self, lines) -> None:
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.lfs[value["oid"]]
        self.server.commits.append(files)
        repo = "/".join(self.path.split("/")[3:5])
        self._answer({"commitUrl": f"{self.server.url}/{repo}/commit/1", "commitOid": "1" * 40})


_MISSING = {"X-Error-Code": "EntryNotFound"}


@contextmanager
def hub():
    """One that runs."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
