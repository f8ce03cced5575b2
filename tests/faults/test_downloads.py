"""Faults of downloads, weights and models.yaml."""

import hashlib
import threading
from pathlib import Path

import pytest
import torch

from csrecon.errors import ModelError
from csrecon.evaluation import selftest
from csrecon.io import downloads
from csrecon.io.downloads import Remote, fetch
from csrecon.zoo import cards
from tests.faults.checks import refused

BODY = bytes(range(256)) * 40


REMOTE = Remote(
    url="https://example.org/w.bin",
    digest=f"sha256:{hashlib.sha256(BODY).hexdigest()}",
    bytes=len(BODY),
)


@pytest.fixture
def remote(server, monkeypatch):

    monkeypatch.setattr(downloads, "DELAYS", (0.01,))
    server.answers["/example.org/w.bin"] = BODY
    return REMOTE


def test_f32(server, remote):
    """A download that is interrupted
    repeated with growing pauses; then exit 4; no partial file"""

    def cut(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:100])

    server.answers["/example.org/w.bin"] = cut
    with pytest.raises(ModelError, match="times") as caught:
        fetch(remote, Path("cache/w.bin"))
    assert caught.value.exit_code == 4
    assert not Path("cache/w.bin").exists()
    server.answers["/example.org/w.bin"] = BODY
    fetch(remote, Path("cache/w.bin"))
    assert Path("cache/w.bin").read_bytes() == BODY


def test_f33(server, remote):
    """A download with a wrong hash
    exit 4; quarantined, never used"""
    server.answers["/example.org/w.bin"] = b"?" + BODY[1:]
    with pytest.raises(ModelError, match="instead of sha256"):
        fetch(remote, Path("cache/w.bin"))
    assert not Path("cache/w.bin").exists()
    assert len(list(Path("cache/quarantine").iterdir())) == 1


def test_f34(y):
    """No network
    exit 4; what to do"""
    refused(4, "reconstruct", y, "--model", "rcoast-paper", "--offline", message="switched off")


def test_f35(server, remote):
    """Two processes that need the same file
    one download for both"""
    asked = [threading.Thread(target=fetch, args=(remote, Path("cache/w.bin"))) for _ in range(4)]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join()
    assert Path("cache/w.bin").read_bytes() == BODY
    assert server.asked == ["/example.org/w.bin"]


def test_f36(y):
    """Weights that are corrupt
    exit 4"""
    path = Path("mine.safetensors")
    path.write_bytes(selftest.GOLDEN.with_name("rcoast.safetensors").read_bytes()[:-1000])
    refused(4, "reconstruct", y, "--model", path, message="mine.safetensors")


def test_f37(y):
    """Weights that are a pickle in disguise
    exit 4; none of its code runs"""

    class Evil:
        def __reduce__(self):
            return Path.touch, (Path("ran"),)

    torch.save({"model": Evil()}, "mine.safetensors")
    refused(4, "reconstruct", y, "--model", "mine.safetensors", message="mine.safetensors")
    words = ["models", "convert", "mine.safetensors", "out.safetensors", "--ipl", 4]
    refused(4, *words, message="safely")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nmodels: {a: !!python/object/apply:os.system ['touch ran']}",
        "version: 1\nmodels: {a: 1}\nmodels: {b: 2}",
        "version: 1\nmodels: {a: {summary: x, surprise: 1}}",
        "[" * 100_000,
        "\udcff",
    ],
)
def test_f38(text):
    """A hostile models.yaml
    exit 4; no code runs; a duplicate key is refused"""
    Path("models.yaml").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ModelError) as caught:
        cards.read_cards(Path("models.yaml"))
    assert caught.value.exit_code == 4
    assert not Path("ran").exists()
