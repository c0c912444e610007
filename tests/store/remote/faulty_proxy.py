"""An HTTP proxy in front of a bucket's server that fails as real ones do, by order."""

import re
import socket
import struct
import threading
import time
from collections import deque
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}
_SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
_INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an error.</Message></Error>"


class FaultyProxy:
    """Forwards to `target` (host, port). `plan` holds what becomes of the next requests, one each,
    and `rule(method, path)` what of those beyond; each gives one of

    pass, 500, 503, 403, reset (nothing is forwarded), lost (forwarded; the answer is a reset),
    lost500 (forwarded; the answer is a 500), slow (the body trickles), cut (the body ends early),
    short (so does it, and its length says so), flip (a bit of the body), hang, stale (a listing of
    before).
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.plan: deque[str] = deque()
        self.rule = lambda method, path: "pass"  # noqa: ARG005
        self.seen: list[tuple[str, str, str]] = []
        self.listings: dict[str, bytes] = {}
        self.guard = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def next_fault(self, method: str, path: str) -> str:
        with self.guard:
            fault = self.plan.popleft() if self.plan else self.rule(method, path)
            self.seen.append((method, path, fault))
        return fault

    def count(self, method: str, pattern: str) -> int:
        """Requests so far."""
        with self.guard:
            return sum(m == method and re.search(pattern, p) is not None for m, p, _ in self.seen)

    def calm(self) -> None:
        """No faults from now on, and nothing seen."""
        with self.guard:
            self.plan.clear()
            self.rule = lambda method, path: "pass"  # noqa: ARG005
            self.seen.clear()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: FaultyProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        fault = self.owner.next_fault(self.command, self.path)
        if fault in ("500", "503", "403"):
            text = _SLOW_DOWN if fault == "503" else _INTERNAL
            self.answer(int(fault), {"Content-Type": "application/xml"}, text)
            return
        if fault == "reset":
            self.reset()
            return
        if fault == "hang":
            time.sleep(30)
            self.reset()
            return
        status, headers, content = self.forward(body)
        if fault == "lost":
            self.reset()
            return
        if fault == "lost500":
            self.answer(500, {"Content-Type": "application/xml"}, _INTERNAL)
            return
        listing = "list-type=2" in self.path
        if fault == "stale" and listing and self.path in self.owner.listings:
            content = self.owner.listings[self.path]
        elif listing:
            self.owner.listings[self.path] = content
        self.answer(status, headers, content, fault)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any  # noqa: N815

    def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(*self.owner.target, timeout=30)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        if body or self.command in ("PUT", "POST"):
            headers["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body or None, headers)
        response = connection.getresponse()
        content = response.read()
        kept = {k: v for k, v in response.getheaders() if k.lower() not in _HOP}
        if self.command == "HEAD":
            kept["Content-Length"] = response.headers.get("Content-Length", "0")
        connection.close()
        return response.status, kept, content

    def answer(
        self, status: int, headers: dict[str, str], content: bytes, fault: str = "pass"
    ) -> None:
        whole = 200 <= status < 300 and len(content) > 8 and self.command == "GET"
        if whole and fault == "short":
            content = content[: len(content) // 2]
        if whole and fault == "flip":
            content = content[:5] + bytes([content[5] ^ 1]) + content[6:]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if whole and fault == "cut":
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.reset()
        elif whole and fault == "slow":
            for start in range(0, len(content), max(1, len(content) // 5)):
                self.wfile.write(content[start : start + max(1, len(content) // 5)])
                self.wfile.flush()
                time.sleep(0.02)
        else:
            self.wfile.write(content)

    def reset(self) -> None:
        """An RST, as of a machine that went away."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()
