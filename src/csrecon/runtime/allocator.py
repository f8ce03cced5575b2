"""The C library's memory, kept between the layers of a network.

glibc hands large freed blocks back to the system and gets them anew, page by page, at the next
layer: as much time as a layer's arithmetic, where features are of some megabytes. Told to keep
them, it does. Blocks from 16 MiB on still come and go one by one, so that huge images leave nothing
behind.
"""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_KEPT = 2**24  # bytes; the features of a tile in fp32
_KEPT = 2**29  # bytes at the top of an arena


def keep_freed_memory() -> bool:
    """Let this process keep freed blocks below 16 MiB; whether its C library can (glibc).

    For programs, not for libraries: it concerns all that runs in the process.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # The second would switch off what the first replaces, so it must not stand alone.
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, _KEPT))
