"""Every error that csrecon raises on purpose, each with its exit code on the command line.

A message says what was given, what was expected and what to do. Codes: 0 ok, 1 bug, 2 usage,
3 bad input, 4 model or download, 5 resources, 6 part of a batch failed, 7 a check failed.
"""

import difflib
from collections.abc import Iterable


class CsreconError(Exception):
    """Root of the error tree; its own exit code 1 means a bug in csrecon."""

    exit_code = 1


class UsageError(CsreconError):
    """An option or argument that cannot be used as given, including an output that exists."""

    exit_code = 2


class InputError(CsreconError):
    """A file or array whose content cannot be used."""

    exit_code = 3


class ModelError(CsreconError):
    """A model or data set that is unknown, missing, damaged or unavailable."""

    exit_code = 4


class ResourceError(CsreconError):
    """The machine lacks memory, disk space, permissions or a device."""

    exit_code = 5


class BatchError(CsreconError):
    """Some items of a batch failed and the others were finished."""

    exit_code = 6


class CheckError(CsreconError):
    """A verification ran and failed."""

    exit_code = 7


def nearest(given: str, known: Iterable[str]) -> str:
    """The end of an "unknown name" message: the closest known name, or a list of all."""
    names = sorted(known)
    close = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}."
