"""Standard input, output and error of a process that was started without them, or loses them."""

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TextIO


def open_missing() -> None:
    """Open the null device in place of a stream that is closed, as by `>&-`.

    Else the next file that is opened, a measurement say, would get its number, and everything that
    is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for Φ on an ASCII terminal


def discard(stream: TextIO) -> None:
    """Send what is written from now on nowhere: nobody reads it any more."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
