"""HTTP for downloads: HTTPS only, few redirects, short patience while connecting.

Proxies are taken from the environment (``https_proxy``, ``no_proxy`` and so on) and from nowhere
else. Only the handlers named here exist: no FTP, no ``file:``, no cookies, no stored passwords.
"""

from __future__ import annotations

import http.client
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from samrt._version import __version__
from samrt.errors import DownloadError

__all__ = ["Opener", "UrlPolicy", "https_only", "make_opener", "open_url"]

Opener = urllib.request.OpenerDirector
UrlPolicy = Callable[[str], None]

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
_REDIRECTS = 5


def https_only(url: str) -> None:
    """Raise :class:`DownloadError` unless a URL is plain HTTPS without user name or password."""
    try:
        parts = urlsplit(url)
        plain = parts.username is None and parts.password is None and bool(parts.hostname)
        good = parts.scheme == "https" and plain and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise DownloadError(f"{url!r} is not an https address: samrt downloads over HTTPS only")


def make_opener(
    policy: UrlPolicy = https_only,
    *,
    connect_seconds: float = CONNECT_SECONDS,
    read_seconds: float = READ_SECONDS,
) -> Opener:
    """An opener whose every request, redirects included, has passed ``policy``.

    Args:
        policy: raises for a URL that must not be opened.
        connect_seconds: patience for looking up the host and connecting to it, over all of its
            addresses.
        read_seconds: longest silence of the server after that.
    """
    patience = (connect_seconds, read_seconds)
    opener = Opener()
    opener.addheaders = [("User-Agent", f"samrt/{__version__}")]
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _HttpHandler(patience),
        _HttpsHandler(patience),
        urllib.request.HTTPDefaultErrorHandler(),
        _RedirectHandler(policy),
        urllib.request.HTTPErrorProcessor(),
        _PolicyHandler(policy),
    ):
        opener.add_handler(handler)
    return opener


def open_url(opener: Opener, url: str, headers: Mapping[str, str]) -> Any:
    """Send a GET request and return the response, its body unread.

    Raises:
        urllib.error.HTTPError: the server refused.
        DownloadError: no connection, or a redirect that is not followed.
    """
    try:
        return opener.open(urllib.request.Request(url, headers=dict(headers)))
    except urllib.error.HTTPError:
        raise
    except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as exc:
        if isinstance(exc, DownloadError):
            raise
        reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        if isinstance(reason, DownloadError):
            raise reason from exc
        host = urlsplit(url).hostname
        raise DownloadError(f"cannot reach {host}: {_words(reason)}") from exc


def _words(reason: Any) -> str:
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate was refused ({reason.verify_message})"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return " ".join(str(reason).split()) or type(reason).__name__


class _PolicyHandler(urllib.request.BaseHandler):
    """Asks the policy before any request leaves; runs before the proxy rewrites the request."""

    handler_order = 50

    def __init__(self, policy: UrlPolicy) -> None:
        self._policy = policy

    def default_open(self, request: urllib.request.Request) -> None:
        """Let the request pass to the next handler, or raise."""
        self._policy(request.full_url)


class _RedirectHandler(urllib.request.HTTPRedirectHandler):
    """A few redirects, each within the policy."""

    max_redirections = _REDIRECTS
    max_repeats = 2

    def __init__(self, policy: UrlPolicy) -> None:
        self._policy = policy

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Check where the server sends us before following."""
        self._policy(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _PatientMixin:
    """Connects within one deadline; afterwards another time limit holds."""

    sock: Any

    def __init__(self, *args: Any, patience: tuple[float, float], **options: Any) -> None:
        super().__init__(*args, **options)
        self._patience = patience
        self._create_connection = self._connect_in_time

    def _connect_in_time(self, address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        return connect_within(address, self._patience[0])

    def connect(self) -> None:
        """Connect, and then allow the server longer silences."""
        super().connect()  # type: ignore[misc]
        self.sock.settimeout(self._patience[1])


class _HttpConnection(_PatientMixin, http.client.HTTPConnection):
    pass


class _HttpsConnection(_PatientMixin, http.client.HTTPSConnection):
    pass


class _HttpHandler(urllib.request.HTTPHandler):
    def __init__(self, patience: tuple[float, float]) -> None:
        super().__init__()
        self._patience = patience

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open with our own connection."""

        def connection(host: str, **options: Any) -> http.client.HTTPConnection:
            return _HttpConnection(host, patience=self._patience, **options)

        return self.do_open(connection, req)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, patience: tuple[float, float]) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(context=self._tls)
        self._patience = patience

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open with our own connection."""

        def connection(host: str, **options: Any) -> http.client.HTTPConnection:
            return _HttpsConnection(host, patience=self._patience, context=self._tls, **options)

        return self.do_open(connection, req)


def connect_within(address: tuple[str, int], seconds: float) -> socket.socket:
    """Connect to ``(host, port)``, trying its addresses in turn, within one deadline.

    The look-up of the name runs in a thread of its own, since the system may take half a minute
    to find that there is no name server.

    Raises:
        OSError: unknown host, refused, or too late.
    """
    deadline = time.monotonic() + seconds
    last: OSError | None = None
    for family, kind, protocol, _, place in _addresses(address, seconds):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(left)
            sock.connect(place)
        except OSError as exc:
            sock.close()
            last = exc
            continue
        sock.settimeout(seconds)  # for the TLS handshake
        return sock
    raise last or TimeoutError("no answer in time")


def _addresses(address: tuple[str, int], seconds: float) -> list[Any]:
    found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found.put(socket.getaddrinfo(*address, type=socket.SOCK_STREAM))
        except OSError as exc:
            found.put(exc)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        result = found.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("the host's name was not found in time") from None
    if isinstance(result, OSError):
        raise result
    return list(result)
