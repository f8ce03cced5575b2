"""What a network is trained to do, one file a task: how a batch is measured and validated."""

from csrecon.training.tasks.base import Camera, Task
from csrecon.training.tasks.blocks import BlocksOptions

TASKS: dict[str, type[BlocksOptions]] = {"blocks": BlocksOptions}
"""Name -> options of a task, whose `begin` makes it."""

AnyTask = BlocksOptions
"""The options of any task, told apart by `name`."""

__all__ = ["TASKS", "AnyTask", "Camera", "Task"]
