"""Fixtures: the shared reference folder where there is one, and images made from formulas."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("CSRECON_SHARED", ROOT.parent / "shared"))

_THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
torch.set_num_threads(min(_THREADS, torch.get_num_threads()))

# Commands under test inherit what is ignored: SIGINT in the background of a shell, SIGHUP by nohup.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def shared(*parts: str) -> Path:
    """A file of the shared reference folder; skips the test where it is not there."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {Path(*parts)} of the reference folder (set CSRECON_SHARED)")
    return path


def scene(height: int = 50, width: int = 70) -> np.ndarray:
    """A colourful uint8 image (H, W, 3) with smooth parts and edges."""
    row, column = np.mgrid[:height, :width]
    red = 120 + 90 * np.sin(row / 6)
    green = 120 + 90 * np.cos(column / 9)
    blue = 60 + 120 * ((row // 8 + column // 8) % 2)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def together(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`csrecon ARGUMENTS` in two processes of torchrun."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*launch, "-m", "csrecon", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


_DECLARED: list[torch.library.Library] = []


def make_torchvision_importable() -> None:
    """Declare two operators that `import torchvision` wants and nothing here calls.

    Their compiled part is linked against CUDA in PyPI's wheel, and cannot be loaded beside a CPU
    build of PyTorch.
    """
    spec = importlib.util.find_spec("torchvision")
    if _DECLARED or spec is None or spec.origin is None:
        return
    try:
        torch.ops.load_library(str(Path(spec.origin).with_name("_C.so")))
    except OSError:
        _DECLARED.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in ("nms", "qnms"):
            _DECLARED[0].define(
                f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "img.png"
    Image.fromarray(scene()).save(path)
    return path


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the user's cache or data, leaves this machine, or writes elsewhere."""
    monkeypatch.setenv("CSRECON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CSRECON_OFFLINE", "1")
    monkeypatch.delenv("CSRECON_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


class Server(ThreadingHTTPServer):
    """Answers with what a test planted: path -> a body, or a function of the handler."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        answer = self.server.answers.get(path)
        with contextlib.suppress(ConnectionError):
            if answer is None:
                self.send_error(404)
            elif callable(answer):
                answer(self)
            else:
                self.reply(answer)

    do_HEAD = do_GET  # noqa: N815 - the base class's word

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on this machine that stands for every other."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.delenv("CSRECON_OFFLINE")
        monkeypatch.setenv("CSRECON_MIRROR", running.url)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield running
        running.shutdown()
        thread.join()
