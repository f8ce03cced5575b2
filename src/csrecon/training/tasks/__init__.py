"""Training tasks, one file each: how a batch is measured, and how a network is validated."""

from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from csrecon.io.documents import short
from csrecon.training.tasks.base import Camera, Task, TaskOptions
from csrecon.training.tasks.blocks import BlocksOptions
from csrecon.training.tasks.denoise import DenoiseOptions
from csrecon.training.tasks.mri import MriOptions

TASKS: dict[str, type[TaskOptions]] = {
    "blocks": BlocksOptions,
    "denoise": DenoiseOptions,
    "mri": MriOptions,
}
"""Name -> options of a task; their `begin` makes the task."""


def _of_its_name(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    name = given.get("name", "blocks")
    if not isinstance(name, str) or name not in TASKS:
        raise ValueError(f"task {short(name)}: known: {', '.join(TASKS)}")
    return TASKS[name].model_validate(given)


AnyTask = Annotated[SerializeAsAny[TaskOptions], BeforeValidator(_of_its_name)]
"""The options of any task."""

__all__ = ["TASKS", "AnyTask", "Camera", "Task", "TaskOptions"]
