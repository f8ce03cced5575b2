"""Worker processes of a benchmark: their number, their set-up, and whether they should end."""

import logging
import os
import signal
from contextvars import ContextVar
from multiprocessing.synchronize import Event

import torch

from csrecon.io import downloads
from csrecon.runtime.allocator import keep_freed_memory

log = logging.getLogger(__name__)


def count(asked: int) -> int:
    """How many processes to start: more than this machine has cores for would only take memory."""
    most = 2 * (os.cpu_count() or 1)
    if asked > most:
        log.info("%d processes asked for; %d are started for this machine's cores.", asked, most)
    return min(asked, most)


_stopped: ContextVar[Event | None] = ContextVar("stopped", default=None)  # in a worker process


def begin(threads: int, offline: bool, stop: Event) -> None:
    """Set up a worker process: its threads, and no log messages, which the first process has."""
    _stopped.set(stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides
    keep_freed_memory()
    downloads.forbidden.set(offline)
    torch.set_num_threads(threads)
    logging.getLogger("csrecon").setLevel(logging.ERROR)


def ended() -> bool:
    """Whether this is a worker process, and the first one has ended the work."""
    stop = _stopped.get()
    return stop is not None and stop.is_set()
