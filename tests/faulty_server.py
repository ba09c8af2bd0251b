"""A real HTTP server on loopback that serves a folder, and fails as it is told to."""

from __future__ import annotations

import gzip
import random
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FaultyServer:
    """Serves the files below `root`.

    `plan(path, number)` says what happens to the request `number` (from 0 on) for a path: "" serves it well;
    "drop" closes the connection before an answer; "tear" after a part of the body; "short" sends a part of the body
    as if it were all; "stall" stops in the middle for `stall` seconds; "flip" alters a byte; a status such as "503" or
    "429" is answered with that, "429 1" with Retry-After as well, "302 URL" with Location; "endless" sends zeros for
    as long as they are taken, "packed" the file in gzip, whatever was asked for.
    `ranges`: whether Range requests are honoured. `log`: (path, first byte asked for) of each request.
    """

    def __init__(self, root: Path, port: int = 0) -> None:
        self.root, self.ranges, self.stall = root, True, 30.0
        self.plan: Callable[[str, int], str] = lambda path, number: ""
        self.log: list[tuple[str, int]] = []
        self.seen: Counter[str] = Counter()
        self._closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.serve(self)

            def do_HEAD(self) -> None:
                outer.serve(self)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that leaves in the middle is what these tests are about."""

        self._server = Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail_at_random(self, share: float, seed: int = 0) -> None:
        """Lets this share of all requests fail, in every way that is worth another try."""
        draw, lock = random.Random(seed), threading.Lock()

        def plan(path: str, number: int) -> str:
            with lock:
                fails, kind = draw.random() < share, draw.choice(["drop", "tear", "503", "429", "500"])
            return kind if fails else ""

        self.plan = plan

    def fetched(self) -> Counter[str]:
        """How often each tar was asked for from its beginning."""
        return Counter(path for path, first in self.log if path.endswith(".tar") and first == 0)

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0].lstrip("/")
        begin, _, end = handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        first, last = int(begin), int(end or 1 << 62)
        number, self.seen[path] = self.seen[path], self.seen[path] + 1
        if handler.command == "GET":
            self.log.append((path, first))
        fault = self.plan(path, number)
        if fault == "drop":
            handler.close_connection = True
            return
        if fault[:1].isdecimal():
            status, _, after = fault.partition(" ")
            header = "Location" if status.startswith("3") else "Retry-After"
            self._answer(
                handler, int(status), b"" if status in ("204", "304") else b"no", {header: after} if after else {}
            )
            return
        if fault == "endless":
            handler.close_connection = True
            handler.send_response(200)
            handler.end_headers()
            while not self._closing.is_set():
                handler.wfile.write(bytes(1 << 16))
        if not (self.root / path).is_file():
            self._answer(handler, 404, b"no", {})
            return
        data = bytearray((self.root / path).read_bytes())
        if fault == "flip":
            data[len(data) // 2] ^= 1
        if fault == "packed":
            self._answer(handler, 200, gzip.compress(bytes(data)), {"Content-Encoding": "gzip"})
            return
        self._file(handler, bytes(data), first, last, fault)

    def _file(self, handler: BaseHTTPRequestHandler, data: bytes, first: int, last: int, fault: str) -> None:
        whole, ranged = len(data), self.ranges and "Range" in handler.headers
        body = data[first : last + 1] if ranged else data
        if fault == "short":
            body = body[: len(body) // 2]
        headers = {"Content-Length": str(len(body))}
        if ranged:
            headers["Content-Range"] = f"bytes {first}-{first + len(body) - 1}/{whole}"
        handler.send_response(206 if ranged else 200)
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        half = len(body) // 2 if fault in ("tear", "stall") else len(body)
        handler.wfile.write(body[:half])
        handler.wfile.flush()
        if fault == "stall":
            self._closing.wait(self.stall)
        if half < len(body):
            handler.close_connection = True

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
