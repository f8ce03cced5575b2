"""SIGINT, SIGTERM and SIGHUP: they unwind a command, so that no temporary file is left.

Those that follow shortly are the same request (Ctrl-C twice, a terminal that closes, `timeout`);
they must not interrupt the removal of temporary files.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SAME_REQUEST = 10.0  # seconds
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is unknown on Windows


class Terminated(BaseException):
    """Raised on SIGTERM and SIGHUP: unwinds like KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def unwinding() -> Iterator[list[int]]:
    """Let the first of these signals raise KeyboardInterrupt or Terminated; yield those received.

    Compiled libraries may lose what was raised, and raise an error of their own.
    """
    first = float("-inf")
    received: list[int] = []

    def unwind(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if time.monotonic() - first < _SAME_REQUEST:
            return
        first = time.monotonic()
        received.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(number)

    with handled(unwind):
        yield received


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle these signals, except those that are ignored, as by `nohup`."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _ENDING if hasattr(signal, name)):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
