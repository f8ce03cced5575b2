"""Faults of servers: slow, endless, lying and misleading ones."""

import gzip
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from csrecon.errors import ModelError
from csrecon.io import downloads
from csrecon.io.downloads import Remote, fetch, fetch_all
from csrecon.zoo import datasets, hub, store
from tests.faults.checks import refused

BODY = bytes(range(256)) * 40
REMOTE = Remote(
    url="https://example.org/w.bin",
    digest=f"sha256:{hashlib.sha256(BODY).hexdigest()}",
    bytes=len(BODY),
)
UNKNOWN = REMOTE.model_copy(update={"bytes": None})
TARGET = Path("cache/w.bin")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(downloads, "DELAYS", (0.01,))


def head(handler, **headers):
    handler.send_response(200)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def drip(handler):
    head(handler, Content_Length="9000")
    for _ in range(600):
        handler.wfile.write(b"?")
        time.sleep(0.1)


def silence(handler):
    time.sleep(60)


def busy(handler):
    handler.reply(b"later", 503, Retry_After="60")


def left():
    """Every file of the cache but locks."""
    found = downloads.cache_dir().rglob("*")
    return [path for path in found if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize(
    ("words", "answer", "number"),
    [
        (("models", "download", "rcoast-paper"), drip, signal.SIGTERM),
        (("data", "download", "set11"), drip, signal.SIGTERM),
        (("data", "download", "set11"), silence, signal.SIGINT),
        (("data", "download", "set11"), busy, signal.SIGTERM),
    ],
)
def test_f88(server, words, answer, number):
    """SIGINT or SIGTERM while a server sends a byte a second, or nothing
    exit 130 or 143 within a second; no partial file"""
    remotes = [*datasets.remotes("set11").values()]
    remotes += [w.checkpoint for _, w in store.all_weights("rcoast-paper")]
    for remote in remotes:
        server.answers[remote.url.removeprefix("https:/")] = answer
    command = [sys.executable, "-m", "csrecon", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as running:
        while not server.asked and running.poll() is None:
            time.sleep(0.01)
        time.sleep(0.5)
        running.send_signal(number)
        began = time.monotonic()
        try:
            code = running.wait(20)
        finally:
            running.kill()
        assert (code, "Traceback" in running.stderr.read()) == (128 + number, False)
    assert time.monotonic() - began < 5
    assert left() == []


@pytest.mark.parametrize("answer", [drip, silence])
def test_f89(server, monkeypatch, answer):
    """A server that sends less than 100 bytes a second for a minute
    repeated with growing pauses; then exit 4; no partial file"""
    from csrecon.io import transfer

    monkeypatch.setattr(transfer, "WINDOW", 0.5)
    server.answers["/example.org/w.bin"] = answer
    with pytest.raises(ModelError, match=r"bytes in 0.5 s\), 2 times"):
        fetch(REMOTE, TARGET)
    assert len(server.asked) == 2
    assert left() == []


def endless(handler):
    head(handler)
    for _ in range(1000):
        handler.wfile.write(b"?" * 2**16)


def bomb(handler):
    head(handler, Content_Encoding="gzip")
    handler.wfile.write(gzip.compress(bytes(2**24)))


def promise(handler):
    head(handler, Content_Length="9" * 15)
    handler.wfile.write(BODY)


@pytest.mark.parametrize("answer", [endless, bomb, promise])
@pytest.mark.parametrize("remote", [REMOTE, UNKNOWN])
def test_f90(server, monkeypatch, remote, answer):
    """A download without end, or compressed so that it has none
    exit 4; nothing is kept, not even set aside"""
    monkeypatch.setattr(downloads, "_MOST", 2**20, raising=False)
    server.answers["/example.org/w.bin"] = answer
    with pytest.raises(ModelError, match="more than the"):
        fetch(remote, TARGET)
    assert left() == []
    assert len(server.asked) == 1


def redirect(place):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", place)
        handler.end_headers()

    return answer


def raw(text):
    return lambda handler: handler.wfile.write(text)


ANSWERS = [
    *map(redirect, ["garbage", "file:///etc/passwd", "ftp://a/b", "http://[", "//[", "//a:b/"]),
    *map(redirect, ["", "http://", "/example.org/w.bin", "http://\x80.\x80/", "http://a:9999999"]),
    raw(b"\0\xff nonsense\r\n\r\n"),
    raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + BODY[:9]),
    raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n" + BODY),
    raw(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"),
    raw(b"HTTP/1.1 429 X\r\nRetry-After: " + b"0" * 5000 + b"\r\nContent-Length: 0\r\n\r\n"),
    raw(b"HTTP/1.1 200 OK\r\nX: " + b"?" * 10**6 + b"\r\n\r\n"),
    raw(b"HTTP/1.1 200 OK\r\n" + b"X: ?\r\n" * 10**4 + b"\r\n"),
    raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFF\r\n?"),
    raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n?"),
    raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 10**6),
    raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + BODY),
    raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\n\r\n" + BODY),
    raw(b"HTTP/1.1 999 \xff\xff\r\nContent-Length: 0\r\n\r\n"),
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_f91(server, answer):
    """A server that answers with no HTTP, or redirects to nowhere or in a circle
    exit 4"""
    server.answers["/example.org/w.bin"] = answer
    with pytest.raises(ModelError) as caught:
        fetch(REMOTE, TARGET)
    assert caught.value.exit_code == 4
    assert not TARGET.exists()


ADDRESSES = ["garbage", "http://[", "file:///etc", "http://", "//x", "http://a:b", "http://a b"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_f98_in_the_environment(server, monkeypatch, y, address):
    monkeypatch.setenv("CSRECON_MIRROR", address)
    refused(4, "models", "download", "rcoast-paper", message="CSRECON_MIRROR")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    refused(4, "reconstruct", y, "--model", "hf:a/b", message="HF_ENDPOINT")


@pytest.mark.parametrize("answer", ANSWERS)
def test_f98_of_the_hub(server, monkeypatch, tmp_path, answer):
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    server.answers["/a/b/resolve/main/config.json"] = answer
    with pytest.raises(ModelError):
        hub.model("hf:a/b")


def test_a_failure_ends_the_other_downloads(server):
    other = REMOTE.model_copy(update={"url": "https://example.org/other.bin"})
    server.answers["/example.org/w.bin"] = drip
    began = time.monotonic()
    with pytest.raises(ModelError, match="404"):
        fetch_all("both", [(REMOTE, TARGET), (other, TARGET.with_name("other.bin"))])
    assert time.monotonic() - began < 5
    assert left() == []
