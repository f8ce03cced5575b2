"""Verified downloads: a file is moved into place only if its digest is the expected one.

A digest is written `sha256:HEX`, `git:HEX` (the SHA-1 that git gives a file's content) or
`pixels:HEX` (of a decoded image, for files that exist in several lossless formats).

Environment: $CSRECON_CACHE (else the system's cache folder), $CSRECON_OFFLINE or
$HF_HUB_OFFLINE, $CSRECON_MIRROR (a base URL, followed by host and path of the original), and the
proxy variables that every HTTP client follows.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar, copy_context
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import platformdirs
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, field_validator

from csrecon.errors import InputError, ModelError
from csrecon.io import decoding, files, transfer
from csrecon.io.transfer import AgainError, Incoming

log = logging.getLogger(__name__)

DELAYS = (1.0, 3.0, 9.0)
"""Seconds before the second, third and fourth attempt."""
_CHUNK = 2**18
_LARGEST_IMAGE = 2**25  # pixels; no image of a set has more than a tenth of them
_MOST = 2**30  # bytes; of a file whose size is not known
_AT_ONCE = 8

Watcher = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
"""Shows a download: (label, total if known) -> context of a function that takes increments."""
watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


forbidden: ContextVar[bool] = ContextVar("forbidden", default=False)
"""Whether the network is forbidden in this context (--offline)."""


class Remote(BaseModel):
    """A file that can be downloaded.

    Attributes:
        url: https, at a pinned commit.
        digest: of its content, `sha256:…`, `git:…` or `pixels:…`.
        bytes: its size, if known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^https://[^/\s]+/\S+$")
    digest: str = Field(pattern=r"^(sha256|pixels):[0-9a-f]{64}$|^git:[0-9a-f]{40}$")
    bytes: int | None = Field(None, ge=1, lt=2**63)

    @field_validator("url")
    @classmethod
    def _can_be_asked(cls, url: str) -> str:
        try:
            return transfer.web_address(url, "url")
        except ModelError as error:
            raise ValueError(str(error)) from error


def cache_dir() -> Path:
    """The folder of downloaded files: $CSRECON_CACHE, else the system's cache folder."""
    chosen = os.environ.get("CSRECON_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("csrecon")


def offline() -> bool:
    """Whether the network is forbidden, in this context or by the environment."""
    if forbidden.get():
        return True
    said = (os.environ.get(name, "") for name in ("CSRECON_OFFLINE", "HF_HUB_OFFLINE"))
    return any(text.lower() in {"1", "on", "true", "yes"} for text in said)


def digest_of(path: Path, kind: str) -> str:
    """The digest of a file; `kind` is the kind of digest: sha256, git or pixels.

    Raises:
        InputError: the file cannot be read.
    """
    with files.reading(path):
        if kind == "sha256":
            return f"sha256:{files.sha256_file(path)}"
        if kind == "git":
            return f"git:{_git_digest(path)}"
        try:
            with decoding.opened(path) as image:
                if image.width * image.height > _LARGEST_IMAGE:
                    return "pixels:none"
                pixels = np.asarray(image.convert("RGB"))
        except InputError:
            return "pixels:none"
    head = f"{pixels.shape[0]}x{pixels.shape[1]}:".encode()
    return "pixels:" + hashlib.sha256(head + pixels.tobytes()).hexdigest()


def _git_digest(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def problem(path: Path, remote: Remote) -> str | None:
    """Why a file is not the expected one; None if it is."""
    if not path.is_file():
        return "a folder or a device instead of a file"
    size = path.stat().st_size
    if remote.bytes is not None and size != remote.bytes:
        return f"{size} bytes instead of {remote.bytes}"
    found = digest_of(path, remote.digest.partition(":")[0])
    return None if found == remote.digest else f"{found} instead of {remote.digest}"


def fetch(remote: Remote, target: Path) -> Path:
    """Make sure that `target` holds the expected bytes; download it if it does not.

    Several processes may call this: one downloads and the others wait. A file with other bytes is
    moved to `quarantine/` beside it, never used and never deleted.

    Raises:
        ModelError: offline, or the server lacks the file, does not answer, or sends other bytes.
        ResourceError: the disk is full or the folder is read-only.
    """
    if target.is_file() and problem(target, remote) is None:
        return target
    if offline():
        raise ModelError(
            f"{target.name}: not in the cache ({target}), and the network is switched off. "
            f"Fetch it on a machine with a network from {remote.url}, or go online."
        )
    with locked(target):
        if target.is_file():
            wrong = problem(target, remote)
            if wrong is None:
                return target
            log.warning("%s: %s; set aside as %s.", target, wrong, _quarantine(target, target))
        _download(remote, target)
    return target


def fetch_all(label: str, wanted: Sequence[tuple[Remote, Path]]) -> None:
    """Fetch many files concurrently; the first failure ends it, and complete files are kept.

    Raises:
        ModelError, ResourceError: as in `fetch`.
    """
    context = copy_context()
    context.run(watcher.set, None)  # one bar for all of them
    stop = threading.Event()
    context.run(transfer.stop.set, stop)
    with _watch(label, len(wanted)) as advance, ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            begun = [
                pool.submit(lambda pair: context.copy().run(fetch, *pair), pair) for pair in wanted
            ]
            for done in as_completed(begun):
                done.result()
                advance(1)
        except BaseException:
            stop.set()  # leaving the pool waits for its threads
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _download(remote: Remote, target: Path) -> None:
    """Transfer, verify and move into place; retry after transient failures."""
    for delay in (*DELAYS, None):
        try:
            with files.new_files(target, overwrite=True) as (temporary,):
                _transfer(remote, temporary, target.name)
                wrong = problem(temporary, remote)
                if wrong is not None:
                    aside = _quarantine(temporary, target)
                    raise ModelError(
                        f"{remote.url}: {wrong}. It is not used and was moved to {aside}. Try "
                        "again later, and report it if the server keeps sending it."
                    )
            return
        except AgainError as error:
            if delay is None:
                raise ModelError(
                    f"{remote.url}: {error}, {len(DELAYS) + 1} times. Try again later, or set "
                    "CSRECON_MIRROR or a proxy if this network blocks it."
                ) from error
            pause = max(delay, error.wait)
            log.info("%s: %s; trying again in %g s.", remote.url, error, pause)
            transfer.pause(pause)


def _transfer(remote: Remote, temporary: Path, label: str) -> None:
    most = _MOST if remote.bytes is None else remote.bytes
    with Incoming(_mirrored(remote.url), most) as incoming:
        expected = incoming.size()
        with temporary.open("wb") as stream, _watch(label, expected) as advance:
            for piece in incoming.pieces():
                stream.write(piece)
                advance(len(piece))


def _watch(label: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
    watch = watcher.get()
    return watch(label, total) if watch else nullcontext(lambda amount: None)


def _mirrored(url: str) -> str:
    mirror = os.environ.get("CSRECON_MIRROR")
    if not mirror:
        return url
    transfer.web_address(mirror, "CSRECON_MIRROR")
    parts = urlsplit(url)
    return f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}"


def _quarantine(path: Path, target: Path) -> Path:
    """Move a file with unexpected bytes to the quarantine; return its new path."""
    aside = target.parent / "quarantine" / f"{target.name}.{files.sha256_file(path)[:12]}"
    aside.parent.mkdir(exist_ok=True)
    path.replace(aside)
    return aside


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock for writing `target`; wait for other processes.

    Raises:
        ResourceError: the lock cannot be created there.
    """
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("%s: another process is downloading it; waiting.", target.name)
            while not lock.is_locked:
                transfer.check()
                with suppress(Timeout):
                    lock.acquire(timeout=0.5)
    except OSError as error:
        raise files.explained(error, target) from error
    try:
        yield
    finally:
        lock.release()
