"""SIGINT, SIGTERM and SIGHUP: they unwind a command, so that no temporary file is left.

Those that follow shortly are the same request (Ctrl-C twice, a terminal that closes, `timeout`);
they must not interrupt the removal of temporary files.
"""

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SAME_REQUEST, _SOON = 10.0, 0.01  # seconds
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

    def again(lost: Any) -> None:
        """Interrupt once more, soon, where Python ignores what is raised: in a destructor."""
        nonlocal first
        if not isinstance(lost.exc_value, KeyboardInterrupt | Terminated):
            if not received:  # else it is a half-made object, whose destructor fails
                before(lost)
            return
        first = float("-inf")
        timer = threading.Timer(_SOON, _thread.interrupt_main, (received[-1],))
        timer.daemon = True
        timer.start()

    before = sys.unraisablehook
    sys.unraisablehook = again
    try:
        with handled(unwind):
            yield received
    finally:
        sys.unraisablehook = before


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


@contextmanager
def collected() -> Iterator[list[int]]:
    """Collect the signals that end a command, so that a step is never cut in two."""
    caught: list[int] = []
    with handled(lambda number, _: caught.append(number)):
        yield caught
