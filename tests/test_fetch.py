"""Downloads against a server on this machine: every fault ends in a clear error and no file."""

import errno
import hashlib
import io
import os
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image

from csrecon.errors import ModelError, ResourceError
from csrecon.io import downloads, transfer
from csrecon.io.downloads import Remote
from csrecon.zoo import datasets
from tests.conftest import scene

BODY = bytes(range(256)) * 2000
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()
PATH = "/files.example/weights.bin"
REMOTE = Remote(url="https:/" + PATH, digest=SHA, bytes=len(BODY))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(downloads, "DELAYS", (0.01, 0.01, 0.01))


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "models" / "weights.bin"


def left(target):
    """What lies in the target's folder, locks left out."""
    found = target.parent.rglob("*") if target.parent.exists() else []
    return sorted(p.name for p in found if p.is_file() and p.suffix != ".lock")


def test_a_file_comes_once_and_is_checked(server, target):
    server.answers[PATH] = BODY
    assert downloads.fetch(REMOTE, target) == target
    assert target.read_bytes() == BODY
    assert downloads.fetch(REMOTE, target) == target
    assert server.asked == [PATH]
    assert left(target) == ["weights.bin"]


def test_progress_is_told(server, target):
    server.answers[PATH] = BODY
    told = []

    class Bar:
        def __init__(self, label, total):
            told.append((label, total))

        def __enter__(self):
            return told.append

        def __exit__(self, *_):
            pass

    token = downloads.watcher.set(Bar)
    try:
        downloads.fetch(REMOTE, target)
    finally:
        downloads.watcher.reset(token)
    assert told[0] == ("weights.bin", len(BODY))
    assert sum(told[1:]) == len(BODY)


@pytest.mark.parametrize("digest", ["git", "pixels"])
def test_other_digests(server, target, digest):
    if digest == "git":
        body = BODY
        value = "git:" + hashlib.sha1(b"blob 512000\0" + BODY).hexdigest()
    else:
        stream = io.BytesIO()
        Image.fromarray(scene()).save(stream, "BMP")
        body, value = stream.getvalue(), downloads.digest_of(_png(target), "pixels")
    server.answers[PATH] = body
    downloads.fetch(Remote(url=REMOTE.url, digest=value, bytes=None), target)
    assert target.read_bytes() == body


def _png(target):
    target.parent.mkdir(parents=True)
    path = target.with_name("same.png")
    Image.fromarray(scene()).save(path)
    return path


def test_wrong_bytes_are_set_aside(server, target):
    server.answers[PATH] = b"?" + BODY[1:]
    with pytest.raises(ModelError, match=r"instead of sha256.*not used.*quarantine"):
        downloads.fetch(REMOTE, target)
    assert not target.exists()
    (aside,) = left(target)
    assert (target.parent / "quarantine" / aside).read_bytes() == b"?" + BODY[1:]


def test_a_damaged_file_in_the_cache_is_set_aside_and_fetched_again(server, target):
    server.answers[PATH] = BODY
    target.parent.mkdir(parents=True)
    target.write_bytes(b"damaged")
    downloads.fetch(REMOTE, target)
    assert target.read_bytes() == BODY
    assert len(left(target)) == 2


def test_a_truncated_body_is_tried_again(server, target):
    def cut(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:1000])

    server.answers[PATH] = cut
    with pytest.raises(ModelError, match="4 times"):
        downloads.fetch(REMOTE, target)
    assert server.asked == [PATH] * 4
    assert left(target) == []


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (403, 1), (429, 4), (500, 4)])
def test_refusals(server, target, status, attempts):
    server.answers[PATH] = lambda handler: handler.reply(b"no", status)
    with pytest.raises(ModelError, match=f"the server answers {status}"):
        downloads.fetch(REMOTE, target)
    assert len(server.asked) == attempts
    assert left(target) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_fault_that_passes(server, target, status):
    server.answers[PATH] = lambda handler: (
        handler.reply(BODY)
        if len(server.asked) > 2
        else handler.reply(b"later", status, Retry_After="0")
    )
    downloads.fetch(REMOTE, target)
    assert target.read_bytes() == BODY
    assert len(server.asked) == 3


def test_the_server_says_how_long_to_wait(server, target):
    server.answers[PATH] = lambda handler: (
        handler.reply(BODY)
        if len(server.asked) > 1
        else handler.reply(b"later", 429, Retry_After="1")
    )
    began = time.monotonic()
    downloads.fetch(REMOTE, target)
    assert time.monotonic() - began >= 1


def test_a_slow_server_is_waited_for(server, target):
    def slowly(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        for start in range(0, len(BODY), 100_000):
            handler.wfile.write(BODY[start : start + 100_000])
            handler.wfile.flush()
            time.sleep(0.05)

    server.answers[PATH] = slowly
    downloads.fetch(REMOTE, target)
    assert target.read_bytes() == BODY


def test_a_silent_server_is_given_up(server, target, monkeypatch):
    monkeypatch.setattr(transfer, "READ_SECONDS", 0.1)
    server.answers[PATH] = lambda handler: time.sleep(0.5)
    with pytest.raises(ModelError, match="no complete response"):
        downloads.fetch(REMOTE, target)
    assert left(target) == []


def test_nobody_listens(server, target, monkeypatch):
    monkeypatch.setenv("CSRECON_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="CSRECON_MIRROR or a proxy"):
        downloads.fetch(REMOTE, target)


@pytest.mark.parametrize("variable", ["CSRECON_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(server, target, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelError, match=r"switched off.*https://files.example"):
        downloads.fetch(REMOTE, target)
    assert server.asked == []
    assert not target.parent.exists()


def test_a_full_disk(server, target, monkeypatch):
    server.answers[PATH] = BODY

    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(type(target), "open", full)
    with pytest.raises(ResourceError, match="disk is full"):
        downloads.fetch(REMOTE, target)
    monkeypatch.undo()
    assert left(target) == []


def test_a_cache_that_cannot_be_written(server, target):
    server.answers[PATH] = BODY
    target.parent.parent.mkdir()
    target.parent.write_text("a file where the folder should be")
    with pytest.raises(ResourceError, match="cannot be written"):
        downloads.fetch(REMOTE, target)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_cache(server, target):
    server.answers[PATH] = BODY
    target.parent.mkdir(parents=True)
    target.parent.chmod(0o500)
    with pytest.raises(ResourceError, match="CSRECON_CACHE"):
        downloads.fetch(REMOTE, target)


CLIENT = """
import sys
from pathlib import Path
from csrecon.io.downloads import Remote, fetch
fetch(Remote(url=sys.argv[1], digest=sys.argv[2], bytes=None), Path(sys.argv[3]))
"""


def client(target):
    arguments = [sys.executable, "-c", CLIENT, REMOTE.url, SHA, str(target)]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)


def slow_answer(handler):
    time.sleep(1)
    handler.reply(BODY)


def test_two_clients_at_once_download_once(server, target):
    server.answers[PATH] = slow_answer
    clients = [client(target), client(target)]
    for each in clients:
        assert each.wait(60) == 0, each.stderr.read()
    assert target.read_bytes() == BODY
    assert server.asked == [PATH]
    assert left(target) == ["weights.bin"]


def test_an_interrupted_client_leaves_nothing(server, target):
    ended = threading.Event()
    server.answers[PATH] = lambda handler: ended.wait(120)  # no answer before the client ends
    running = client(target)
    while not server.asked:
        time.sleep(0.01)
    running.send_signal(2)
    assert running.wait(60) != 0
    ended.set()
    assert left(target) == []
    server.answers[PATH] = BODY
    downloads.fetch(REMOTE, target)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(
    "url", ["http://files.example/a", "file:///etc/passwd", "https://files.example", "ftp://a/b"]
)
def test_only_https_is_a_source(url):
    with pytest.raises(ValueError, match="url"):
        Remote(url=url, digest=SHA, bytes=None)


def test_a_set_comes_whole(server, tmp_path, monkeypatch):
    card = datasets.DATASETS["set12"]
    pictures = {}
    for index in range(card.count):
        stream = io.BytesIO()
        Image.fromarray(scene(9 + index, 9)).save(stream, "PNG")
        pictures[f"{index:02}.png"] = stream.getvalue()
    lines = [f"sha256:{hashlib.sha256(b).hexdigest()}  {n}\n" for n, b in pictures.items()]
    (tmp_path / "set12.txt").write_text("".join(lines))
    monkeypatch.setattr(datasets, "_LISTS", tmp_path)
    for name, body in pictures.items():
        server.answers[card.url(name).removeprefix("https:/")] = body
    found = datasets.images("set12")
    assert [path.name for path in found] == list(pictures)
    assert datasets.verify("set12", found[0].parent) == []
    twice = found[1].with_suffix(".bmp")
    twice.write_bytes(pictures["01.png"])
    assert datasets.verify("set12", found[0].parent) == ["01.bmp: not a file of this set"]
    twice.unlink()
    found[3].write_bytes(pictures["00.png"])
    found[5].unlink()
    assert datasets.verify("set12", found[0].parent) == [
        "03.png: other content than the published file",
        "05.png: missing",
    ]
    asked = len(server.asked)
    assert len(datasets.images("set12")) == card.count
    assert len(server.asked) == asked + 2
    assert datasets.verify("set12", found[0].parent) == []


def test_a_set_that_cannot_be_had(server, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"set11.*not on this machine.*404.*--data-dir"):
        datasets.images("set11")
    monkeypatch.setattr(datasets, "_LISTS", tmp_path)
    with pytest.raises(ModelError, match="digests of its files are not known"):
        datasets.images("set12")
    with pytest.raises(ModelError, match="digests of its files are not known"):
        datasets.verify("bsd68-gray", downloads.cache_dir())


@pytest.mark.parametrize("line", ["sha256:00  ../evil.png", "sha256:00  .hidden", "nonsense"])
def test_lists_name_plain_files_only(tmp_path, monkeypatch, line):
    (tmp_path / "set12.txt").write_text(line + "\n")
    monkeypatch.setattr(datasets, "_LISTS", tmp_path)
    with pytest.raises(ModelError, match="not a list of digests"):
        datasets.remotes("set12")


def test_every_list_is_of_its_set():
    for name, card in datasets.DATASETS.items():
        assert len(datasets.remotes(name)) in (0, card.count)
