"""Options of `reconstruct` for classical solvers: a warm start, and what happens on divergence."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csrecon.cli.command import log
from csrecon.errors import UsageError

if TYPE_CHECKING:
    from csrecon.reconstructors.base import Step

_PANEL = "Classical solvers"


def _option(text: str, metavar: str | None = None) -> Any:
    return typer.Option(help=text, metavar=metavar, rich_help_panel=_PANEL)


@dataclass(frozen=True)
class SolverOptions:
    """How a classical solver begins and ends."""

    init: Annotated[
        Path | None, _option("Warm start: an image of the size that was measured.", "FILE")
    ] = None
    init_model: Annotated[
        str | None,
        _option("Warm start: the result of another model, as fista:iterations=20.", "MODEL"),
    ] = None
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            help="Write the best iterate of a solver that diverges, instead of exit code 7.",
            rich_help_panel=_PANEL,
        ),
    ] = False

    def check(self, many: bool, held_out: bool) -> None:
        """Refuse two warm starts, one image for many measurements, and a start that knows too much.

        Args:
            many: whether there are several measurements.
            held_out: whether rows are held out to estimate the error.
        """
        if self.init is None:
            return
        if self.init_model is not None:
            raise UsageError("--init and --init-model are both a warm start: give one.")
        if many:
            raise UsageError("--init is one image: give one measurement, or use --init-model.")
        if held_out:
            raise UsageError(
                "--check and --uncertainty hold values out, and the image of --init may know them: "
                "use --init-model, which is run again on the rest."
            )

    @property
    def start(self) -> Path | str | None:
        """The warm start: an image file, the name of a model, or None."""
        return self.init or self.init_model


def tell(step: "Step", label: str) -> None:
    """Print the facts of an iterate with --verbose."""
    if step.facts:
        said = ", ".join(f"{name} {value:.6g}" for name, value in step.facts.items())
        log.debug("%s: iteration %d of %d: %s", label, step.index, step.total, said)


def reason(results: Sequence[dict[str, float]], stopped: str) -> dict[str, Any]:
    """What a result says of its iterates; nothing for a model without facts."""
    return {"stopped": stopped, "convergence": list(results)} if stopped else {}
