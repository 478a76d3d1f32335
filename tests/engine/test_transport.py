"""HTTPS only, few redirects, proxies as the environment says, and no long waits."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from samrt.download import Download, fetch
from samrt.errors import DownloadError
from samrt.transport import connect_within, https_only, make_opener, open_url


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/sam.pth",
        "ftp://example.org/sam.pth",
        "file:///etc/passwd",
        "data:,hello",
        "https://user:word@example.org/sam.pth",
        "https:///sam.pth",
        "https://example.org:notaport/",
        "sam.pth",
        "",
    ],
)
def test_only_https_is_opened(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="HTTPS only"):
        https_only(url)
    with pytest.raises(DownloadError):
        open_url(make_opener(), url, {})
    with pytest.raises(DownloadError, match="HTTPS only"):
        fetch(Download(url, tmp_path / "file"))
    assert list(tmp_path.iterdir()) == []


def test_https_is_allowed() -> None:
    url = "https://example.org:8443/a/b.pth?download=1"
    https_only(url)
    with pytest.raises(DownloadError):
        https_only(url.replace("https", "http"))


def test_redirects_are_followed_within_the_policy(
    file_server: Any, local_opener: Callable[..., Any]
) -> None:
    file_server.content = b"here"
    file_server.redirect = {"/a": f"{file_server.url}/b", "/b": "/c"}
    with open_url(local_opener(), f"{file_server.url}/a", {"Range": "bytes=1-"}) as response:
        assert response.read() == b"ere"
    assert file_server.asked_ranges == ["bytes=1-"] * 3
    file_server.redirect = {"/a": "http://192.0.2.1/elsewhere"}
    with pytest.raises(DownloadError, match="is not on this machine"):
        open_url(local_opener(), f"{file_server.url}/a", {})
    file_server.redirect = {"/a": "file:///etc/passwd"}
    with pytest.raises((DownloadError, OSError)):
        open_url(local_opener(), f"{file_server.url}/a", {})


def test_redirects_without_end_are_given_up(
    file_server: Any, local_opener: Callable[..., Any], tmp_path: Path
) -> None:
    file_server.redirect = {f"/{n}": f"/{n + 1}" for n in range(50)}
    wanted = Download(f"{file_server.url}/0", tmp_path / "file")
    with pytest.raises(DownloadError):
        fetch(wanted, opener=local_opener())
    assert len(file_server.requests) <= 7
    assert list(tmp_path.iterdir()) == []


def test_a_closed_port_is_no_network(local_opener: Callable[..., Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DownloadError, match=r"cannot reach 127\.0\.0\.1: Connection refused"):
        fetch(Download(f"http://127.0.0.1:{port}/x", tmp_path / "x"), opener=local_opener())
    assert list(tmp_path.iterdir()) == []


def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="name was not found in time"):
        connect_within(("sam.example", 443), 0.1)
    assert time.monotonic() - start < 2.0


def test_all_addresses_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))] * 20
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: silent)
    tried: list[float] = []

    class Silent(socket.socket):
        def connect(self, _: Any) -> None:
            tried.append(self.gettimeout() or 0.0)
            time.sleep(min(self.gettimeout() or 0.0, 0.1))
            raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "socket", Silent)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        connect_within(("sam.example", 443), 0.35)
    assert time.monotonic() - start < 2.0
    assert 2 <= len(tried) < 20
    assert all(later < earlier for earlier, later in pairwise(tried))


def test_a_silent_server_is_given_up(
    local_opener: Callable[..., Any], file_server: Any, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        start = time.monotonic()
        with pytest.raises(DownloadError, match="no answer in time"):
            fetch(Download(url, tmp_path / "x"), opener=local_opener(read_seconds=0.2))
        assert time.monotonic() - start < 2.0


def test_the_proxy_of_the_environment_is_used(
    file_server: Any, local_opener: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file_server.content = b"through the proxy"
    monkeypatch.setenv("http_proxy", file_server.url)
    opener = make_opener(lambda url: None)
    with open_url(opener, "http://checkpoints.invalid/sam.pth", {}) as response:
        assert response.read() == b"through the proxy"
    assert file_server.requests[0]["host"] == "checkpoints.invalid"


def test_an_unknown_host_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=r"cannot reach sam\.example: Name or service") as info:
        fetch(Download("https://sam.example/sam.pth", tmp_path / "sam.pth"))
    assert "\n" not in str(info.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a server with a certificate of its own making, and that certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not installed")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as client:
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}/x", folder / "cert.pem"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_certificates_are_checked(
    tls_server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url, certificate = tls_server
    with pytest.raises(DownloadError, match="its certificate was refused"):
        fetch(Download(url, tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetch(Download(url, tmp_path / "x")).bytes == 6
    assert (tmp_path / "x").read_bytes() == b"secret"
