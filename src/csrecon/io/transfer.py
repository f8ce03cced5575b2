"""One HTTP transfer that nothing can hold up: no slow server, no endless answer, no redirect.

The response arrives in a thread of its own, which touches no file. Whoever waits for it looks up
several times a second, so a signal, or `stop` in another thread, ends the wait at once, in whatever
state the connection is.
"""

import queue
import re
import threading
import time
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin, urlsplit

from csrecon.errors import ModelError

if TYPE_CHECKING:
    from requests import Response

CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
SLOWEST, WINDOW = 100, 60.0
"""Bytes per second and seconds: a transfer that is slower all this time counts as no answer."""
LONGEST_WAIT = 60.0
"""Seconds; the most that is waited for a server's Retry-After."""
_TICK = 0.2  # seconds between two looks at `stop`
_PIECE = 2**12  # bytes; small, so that the speed of a slow transfer is known
_REDIRECTS = 10
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_GZIP_OR_ZLIB = 47  # zlib's code for either header

stop: ContextVar[threading.Event | None] = ContextVar("stop", default=None)
"""Ends the transfers of a context when it is set."""


class AgainError(Exception):
    """A transient failure; `wait` is the server's Retry-After in seconds."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class StoppedError(Exception):
    """`stop` was set: nobody waits for this transfer any more."""


def check() -> None:
    """Raise StoppedError if the transfers of this context were stopped."""
    event = stop.get()
    if event is not None and event.is_set():
        raise StoppedError


def pause(seconds: float) -> None:
    """Sleep, but not after a stop.

    Raises:
        StoppedError: the transfers of this context were stopped.
    """
    event = stop.get()
    if event is None:
        time.sleep(seconds)
    elif event.wait(seconds):
        raise StoppedError


def web_address(text: str, what: str) -> str:
    """The text, if it is the address of a server: http or https, and a host.

    Raises:
        ModelError: it is not; `what` says where it is from.
    """
    try:
        parts = urlsplit(text)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        right = False
    if not right or re.search(r"[\s\x00-\x1f]", text):
        raise ModelError(f"{what} {text[:200]!r}: expected an address as https://host/path.")
    return text


class Incoming:
    """The response to a request, as it arrives.

    Args:
        url: http or https.
        most: bytes; a longer response is refused.
    """

    def __init__(self, url: str, most: int) -> None:
        self._url, self._most = url, most
        self._arrived: queue.Queue[Any] = queue.Queue(256)
        self._unwanted = threading.Event()
        self._since, self._count = time.monotonic(), 0
        threading.Thread(target=self._receive, daemon=True).start()

    def __enter__(self) -> Self:
        """This response."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take no more of it; the thread ends at the next byte or timeout."""
        self._unwanted.set()

    def size(self) -> int | None:
        """The number of bytes that the response has, if the server says it.

        Raises:
            AgainError: no answer, or the server says that it is busy.
            ModelError: the server lacks the file, or sends more than is wanted.
            StoppedError: as `check`.
        """
        response: Response = self._next()
        if response.status_code in _AGAIN:
            asked = _number(response.headers.get("Retry-After")) or 0
            wait = float(min(asked, LONGEST_WAIT))
            raise AgainError(f"the server answers {response.status_code}", wait)
        if not response.ok:
            raise ModelError(
                f"{self._url}: the server answers {response.status_code} {response.reason}. "
                "If the file has moved for good, report it; any copy with the right digest "
                "may be put into the cache by hand."
            )
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise ModelError(f"{self._url}: sent in an encoding not asked for, {encoding[:40]!r}.")
        self._decoder = None if encoding == "identity" else zlib.decompressobj(_GZIP_OR_ZLIB)
        self._expected = _number(response.headers.get("Content-Length"))
        if self._decoder:
            self._expected = None
        elif self._expected is not None and self._expected > self._most:
            raise self._too_long()
        return self._expected

    def pieces(self) -> Iterator[bytes]:
        """The bytes, in order, after `size`.

        Raises:
            AgainError: they end early, or arrive too slowly.
            ModelError: more of them than is wanted.
            StoppedError: as `check`.
        """
        received = 0
        while (piece := self._next()) is not None:
            self._judge(len(piece))
            if self._decoder:
                try:
                    piece = self._decoder.decompress(piece, self._most - received + 1)
                except zlib.error as error:
                    raise AgainError("the response is damaged") from error
            received += len(piece)
            if received > self._most:
                raise self._too_long()
            yield piece
        ended = self._decoder is None or self._decoder.eof
        if not ended or (self._expected is not None and received < self._expected):
            raise AgainError(f"the response ends after {received} of {self._expected or '?'} bytes")

    def _too_long(self) -> ModelError:
        return ModelError(
            f"{self._url}: the server sends more than the {self._most} bytes that the file may "
            "have. Nothing of it is kept. Try again later, and report it if it does not end."
        )

    def _next(self) -> Any:
        """What arrives next: the response, pieces of it, None at the end."""
        while True:
            check()
            try:
                arrived = self._arrived.get(timeout=_TICK)
            except queue.Empty:
                self._judge(0)
                continue
            if isinstance(arrived, Exception):
                raise arrived
            return arrived

    def _judge(self, count: int) -> None:
        """Raise AgainError if too little has arrived in the last WINDOW."""
        self._count += count
        if time.monotonic() - self._since >= WINDOW:
            if self._count < SLOWEST * WINDOW:
                raise AgainError(f"no complete response ({self._count} bytes in {WINDOW:g} s)")
            self._since, self._count = time.monotonic(), 0

    def _put(self, arrived: object) -> None:
        while not self._unwanted.is_set():
            try:
                self._arrived.put(arrived, timeout=1)
            except queue.Full:
                continue
            return

    def _receive(self) -> None:
        import requests  # noqa: PLC0415 - only where something is downloaded
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        brief = requests.ConnectionError, requests.Timeout
        try:
            with requests.Session() as session, _asked(session, self._url) as response:
                self._put(response)
                try:
                    while piece := response.raw.read(_PIECE, decode_content=False):
                        self._put(piece)
                        if self._unwanted.is_set():
                            return
                except (HTTPError, OSError) as error:
                    self._put(AgainError(f"the response ends early ({type(error).__name__})"))
                    return
            self._put(None)
        except brief as error:
            self._put(AgainError(f"no complete response ({type(error).__name__})"))
        except ModelError as error:
            self._put(error)
        except (requests.RequestException, HTTPError, ValueError, OSError) as error:
            self._put(ModelError(f"{self._url}: cannot be requested ({error})."))
        except Exception as error:  # a bug; raised where the response is waited for
            self._put(error)


def _asked(session: Any, url: str) -> "Response":
    """The response after redirects, its body not yet read.

    requests would read the whole body of every redirect, so they are followed here.
    """
    following = url
    for _ in range(_REDIRECTS):
        response: Response = session.get(
            web_address(following, f"{url}: redirected to" if following != url else "address"),
            stream=True,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            allow_redirects=False,
            headers={"Accept-Encoding": "identity"},
        )
        if not response.is_redirect:
            return response
        place = session.get_redirect_target(response)
        response.close()
        following = urljoin(following, place)
    raise ModelError(f"{url}: redirected more than {_REDIRECTS} times; report it.")


def _number(text: str | None) -> int | None:
    """The number of a header; None for anything else."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None
