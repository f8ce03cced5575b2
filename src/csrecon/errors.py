"""Every error that csrecon raises on purpose, each with its exit code on the command line.

A message says what was given, what was expected and what to do. Codes: 0 ok, 1 bug, 2 usage,
3 bad input, 4 model or download, 5 resources, 6 part of a batch failed, 7 a check failed.
"""

import contextlib
import difflib
from collections.abc import Iterable, Iterator


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


_MEMORY_WORDS = (
    "out of memory",  # CUDA, MPS
    "can't allocate memory",  # PyTorch on a CPU
    "cannot allocate memory",  # the operating system, in the words of a library
    "not enough memory",  # likewise, under Windows
    "insufficient memory",  # OpenCV
    "alloc_failed",  # cuBLAS, cuDNN
    "could not create a primitive",  # oneDNN
    "bad_alloc",  # C++
    "bad allocation",  # likewise, under Windows
    "without exception set",  # a compiled library got no memory, and did not say so to Python
    "without setting an exception",  # likewise
    "can't start new thread",  # there is no memory for its stack, or no process more is allowed
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; every library and device has its own message.

    A library that cannot finish its work after a MemoryError raises an error of its own.
    """
    if isinstance(error, MemoryError) or isinstance(error.__context__, MemoryError):
        return True
    said = str(error).lower()
    named = type(error).__name__ == "OutOfMemoryError"  # of PyTorch, which is not imported here
    return named or any(words in said for words in _MEMORY_WORDS)


@contextlib.contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Turn an error that means that memory ran out into a ResourceError about `what`.

    Raises:
        ResourceError: out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, what) from error


def out_of_memory(error: BaseException, what: str = "") -> ResourceError:
    """The error to raise when memory ran out, with the first line of what the library says."""
    said = str(error).strip().partition("\n")[0]
    label = f"{what}: " if what else ""
    return ResourceError(
        f"{label}out of memory ({said or type(error).__name__}). Free memory, or use smaller files."
    )


def nearest(given: str, known: Iterable[str]) -> str:
    """The end of an "unknown name" message: the closest known name, or a list of all."""
    names = sorted(known)
    close = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}."
