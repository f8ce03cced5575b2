"""Processes started by torchrun: rank of this one, and communication between them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from csrecon.errors import ResourceError, UsageError

_VARIABLES = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_MEETING = timedelta(minutes=5)  # torchrun starts all processes at once


def launched() -> bool:
    """Whether torchrun started this process: a single one of its variables comes from elsewhere."""
    return all(os.environ.get(name) for name in _VARIABLES)


def _numbers() -> tuple[int, int, int]:
    """Local rank, rank and world size.

    Raises:
        UsageError: a variable that torchrun would not have set.
    """
    texts = {name: os.environ[name] for name in _VARIABLES if name != "MASTER_ADDR"}
    if all(text.isdecimal() and len(text) < 7 for text in texts.values()):
        local, rank, world, port = (int(text) for text in texts.values())
        if rank < world and local < world and 0 < port < 2**16:
            return local, rank, world
    said = ", ".join(f"{name}={text}" for name, text in texts.items())
    raise UsageError(
        f"{said}: not set by torchrun. Start several processes with `torchrun --nproc-per-node N "
        "-m csrecon …`, or unset these variables."
    )


@contextmanager
def processes(device: str) -> Iterator[tuple[str, int, int]]:
    """Join the other processes, if torchrun started this one: device, rank and world size.

    Raises:
        UsageError: variables that torchrun would not have set.
        ResourceError: no GPU for this process, or the others do not come.
    """
    if not launched():
        yield device, 0, 1
        return
    local, rank, world = _numbers()
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    cuda = device.startswith(("auto", "cuda")) and torch.cuda.is_available()
    if cuda:
        count = torch.cuda.device_count()
        if local >= count:
            raise ResourceError(
                f"LOCAL_RANK={local}: this machine has {count} GPUs; start at most one process "
                "each with --nproc-per-node, or pass --device cpu."
            )
        torch.cuda.set_device(local)
    # Results are gathered on the CPU; the long timeout is for processes that finish early.
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    try:
        store, _, _ = next(rendezvous("env://", timeout=_MEETING))
        store.set_timeout(timedelta(days=7))
        distributed.init_process_group(
            backend, store=store, rank=rank, world_size=world, timeout=timedelta(days=7)
        )
    except (RuntimeError, ValueError, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ResourceError(f"the {world} processes of torchrun do not meet ({first}).") from error
    try:
        yield (f"cuda:{local}" if cuda else "cpu"), rank, world
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
