"""What an output keeps of the file that it replaces, and files that are never replaced."""

import contextlib
import stat
from pathlib import Path

from csrecon.errors import UsageError

_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_PERMISSIONS = stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO


def refuse_protected(target: Path) -> None:
    """Raise UsageError if an existing target is write-protected, or is no regular file.

    Of a symbolic link only the link would be replaced, never the file that it leads to.
    """
    mode = target.lstat().st_mode
    if stat.S_ISLNK(mode):
        return
    if not stat.S_ISREG(mode):
        raise UsageError(f"{target}: is a device or a pipe; give a file name.")
    if not mode & _WRITABLE:
        raise UsageError(
            f"{target}: is write-protected and is kept, with --overwrite too. Give another output "
            "name, or make it writable."
        )


def keep_permissions(temporary: Path, target: Path) -> None:
    """Give a new file the permissions of the file that it is about to replace, if there is one."""
    with contextlib.suppress(OSError):  # nothing to replace, or a file system without permissions
        mode = target.lstat().st_mode
        if stat.S_ISREG(mode):
            temporary.chmod(mode & _PERMISSIONS)
