"""A server on this machine that stands for every other, and misbehaves on request."""

import contextlib
import gzip
import hashlib
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from csrecon.zoo import datasets

MISDEEDS = (
    *(
        "none",
        "missing",
        "busy",
        "cut",
        "wrong",
        "empty",
        "drip",
        "long",
        "gzip",
        "loop",
        "elsewhere",
    ),
    *("length", "header", "garbage", "close", "silent"),
)
SET = "tiny"


class Loopback(ThreadingHTTPServer):
    """Serves files under any path that ends with their name.

    Attributes:
        files: name -> content.
        misdeed: one of MISDEEDS, which most requests meet.
        pause: seconds between two pieces of a file.
    """

    daemon_threads = True

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.misdeed = "none"
        self.pause = 0.0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Its base URL, for CSRECON_MIRROR."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        """End."""
        self.shutdown()
        self.server_close()


def lists(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A folder of digest lists with a set of these files, for Forked."""
    folder.mkdir(parents=True)
    for path in datasets._LISTS.glob("*.txt"):
        (folder / path.name).write_text(path.read_text())
    lines = [f"sha256:{hashlib.sha256(body).hexdigest()}  {name}" for name, body in files.items()]
    (folder / f"{SET}.txt").write_text("\n".join(lines) + "\n")
    return folder


class _Handler(BaseHTTPRequestHandler):
    server: Loopback

    def do_GET(self) -> None:
        """Answer, well or badly."""
        body = self.server.files.get(self.path.rpartition("/")[2], b"a file\n" * 100)
        with contextlib.suppress(OSError):
            getattr(self, f"_{self.server.misdeed}")(body)

    def _reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        size = max(1, len(body) // 8) if self.server.pause else len(body) or 1
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            time.sleep(self.server.pause)

    def _none(self, body: bytes) -> None:
        self._reply(body)

    def _missing(self, body: bytes) -> None:
        self._reply(b"", 404)

    def _busy(self, body: bytes) -> None:
        self._reply(b"", 503, Retry_After="0")

    def _cut(self, body: bytes) -> None:
        self._reply(body[: len(body) // 2], Content_Length=str(len(body)))

    def _wrong(self, body: bytes) -> None:
        self._reply(b"?" + body[1:])

    def _empty(self, body: bytes) -> None:
        self._reply(b"")

    def _drip(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for index in range(min(len(body), 30)):
            self.wfile.write(body[index : index + 1])
            time.sleep(0.1)

    def _long(self, body: bytes) -> None:
        self._reply(body + bytes(2**20))

    def _gzip(self, body: bytes) -> None:
        self._reply(gzip.compress(bytes(64 * 2**20)), Content_Encoding="gzip")

    def _loop(self, body: bytes) -> None:
        self._reply(b"", 302, Location=self.path)

    def _elsewhere(self, body: bytes) -> None:
        self._reply(b"", 302, Location="http://[not an address")

    def _length(self, body: bytes) -> None:
        self._reply(body, Content_Length="-5")

    def _header(self, body: bytes) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n" + body)

    def _garbage(self, body: bytes) -> None:
        self.wfile.write(body)

    def _close(self, body: bytes) -> None:
        self.close_connection = True

    def _silent(self, body: bytes) -> None:
        time.sleep(2)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
