"""Processes started by torchrun: rank of this one, and communication between them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any


def launched() -> bool:
    """Whether torchrun started this process."""
    return "LOCAL_RANK" in os.environ


@contextmanager
def processes(device: str) -> Iterator[tuple[str, int, int]]:
    """Join the other processes, if torchrun started this one: device, rank and world size."""
    if not launched():
        yield device, 0, 1
        return
    import torch
    from torch import distributed

    cuda = device.startswith(("auto", "cuda")) and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Results are gathered on the CPU; the long timeout is for processes that finish early.
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(days=7))
    try:
        chosen = f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu"
        yield chosen, distributed.get_rank(), distributed.get_world_size()
    finally:
        distributed.destroy_process_group()


def wait() -> None:
    """Wait for the other processes."""
    from torch import distributed

    distributed.barrier()


def gathered(mine: Any) -> list[Any]:
    """The objects of all processes in the order of their ranks; every process must call this."""
    from torch import distributed

    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, mine)
    return everyone
