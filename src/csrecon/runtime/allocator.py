"""Thresholds of glibc's malloc, so that freed memory is reused from layer to layer.

By default glibc returns large freed blocks to the system and maps them again, page by page, for
the next layer. With features of a few megabytes this takes as long as the layer's arithmetic.
Raised thresholds keep the blocks in the process. Blocks of 16 MiB and more are still returned, so
that huge images leave no memory allocated.
"""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_KEPT = 2**24  # bytes; the features of a tile in fp32
_KEPT = 2**29  # bytes at the top of an arena


def keep_freed_memory() -> bool:
    """Let this process keep freed blocks below 16 MiB; return whether its C library can (glibc).

    For programs, not for libraries: it affects the whole process.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Setting only the trim threshold would disable the dynamic mmap threshold without replacing it.
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, _KEPT))
