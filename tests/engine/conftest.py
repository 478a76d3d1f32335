"""A file server on this machine that can misbehave in the ways real ones do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from samrt.errors import DownloadError
from samrt.transport import Opener, make_opener


@dataclass
class FileServer:
    """What is served, how, and what was asked.

    Attributes:
        content: the file, under every path.
        etag: its ETag; ``None`` sends none.
        ranges: whether ``Range`` is honoured.
        die_after: bytes after which each answer ends, one number per request, ``None`` for never.
        status: an error code for every request.
        headers: sent with every answer; ``None`` as a value leaves a header out.
        redirect: path -> address to send the client to.
        requests: headers of the requests so far.
    """

    content: bytes = b""
    etag: str | None = '"one"'
    ranges: bool = True
    die_after: list[int | None] = field(default_factory=list)
    status: int | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    redirect: dict[str, str] = field(default_factory=dict)
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def asked_ranges(self) -> list[str | None]:
        return [request.get("range") for request in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        plan: FileServer = self.server.plan
        plan.requests.append({name.lower(): value for name, value in self.headers.items()})
        path = urlsplit(self.path).path
        if path in plan.redirect:
            self.send_response(302)
            self.send_header("Location", plan.redirect[path])
            self.end_headers()
            return
        if plan.status is not None:
            self.send_error(plan.status)
            return
        start = self._start(plan)
        if start is not None and start >= len(plan.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(plan.content)}")
            self.end_headers()
            return
        body = plan.content[start or 0 :]
        headers: dict[str, str | None] = {"Content-Length": str(len(body)), "ETag": plan.etag}
        if start is not None:
            last = len(plan.content) - 1
            headers["Content-Range"] = f"bytes {start}-{last}/{len(plan.content)}"
        self.send_response(200 if start is None else 206)
        for name, value in {**headers, **plan.headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        cut = plan.die_after.pop(0) if plan.die_after else None
        self.wfile.write(body if cut is None else body[:cut])

    def _start(self, plan: FileServer) -> int | None:
        asked = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if asked is None or not plan.ranges or (condition and condition != plan.etag):
            return None
        return int(asked.removeprefix("bytes=").partition("-")[0])


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server on 127.0.0.1 in a thread; proxies of the environment are left out."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.plan = FileServer(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.plan
    server.shutdown()
    thread.join()
    server.server_close()


def loopback_only(url: str) -> None:
    """The policy of tests: this machine, plain HTTP."""
    if not url.startswith("http://127.0.0.1:"):
        raise DownloadError(f"{url!r} is not on this machine")


@pytest.fixture
def local_opener() -> Callable[..., Opener]:
    """``local_opener(...)``: an opener for the file server only."""
    return lambda **options: make_opener(loopback_only, **options)
