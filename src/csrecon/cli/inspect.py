"""`csrecon inspect`: the content of a file of measurements or arrays."""

import itertools
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csrecon import _default
from csrecon.cli import lab, mri
from csrecon.cli.command import Json, progress, say, say_json, say_table
from csrecon.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csrecon.evaluation import arrangements
    from csrecon.sensing.operators import Phi

_SHOWN = 500  # arrays, and lines of advice
_NOTHING_SAID = lab.LabOptions()
_DETECTED = mri.ScanOptions()


def inspect(
    file: Annotated[Path, typer.Argument(help="A file of arrays or a measurement.")],
    laboratory: lab.LabOptions = _NOTHING_SAID,
    model: Annotated[
        str, typer.Option(help="The network that judges the orders.", metavar="MODEL")
    ] = _default.MODEL,
    scan: mri.ScanOptions = _DETECTED,
    as_json: Json = False,
) -> None:
    """Show the content of a measurement file, arrays that may be Φ, and the next command.

    Of k-space (complex .npy, .mat, .h5, .cfl) it names the axes.

    With --phi and --shape it finds the order of lab values: every order of pixels and blocks is
    tried, and the one whose reconstruction best predicts held-out values comes first, with the
    gain that gives an image between black and white.

    **Examples**

        csrecon inspect y.npy
        csrecon inspect lab.mat
        csrecon inspect y.csv --phi phi.npy
        csrecon inspect lab.mat --var y --phi lab.mat:Phi --shape 480x288
    """
    from csrecon.io import arrays
    from csrecon.sensing import contents, native

    phi = laboratory.phi
    own = file.suffix.lower() in native.SUFFIXES
    if own and native.describes_itself(file):
        if laboratory != replace(_NOTHING_SAID, phi=phi):
            raise UsageError(
                f"{file}: written by csrecon, with its order and units; only --phi can be given."
            )
        _own(file, phi, as_json)
        return
    found = {name: contents.describe(value) for name, value in arrays.read(file).items()}
    sampling = None
    if phi is not None:
        sampling = native.read_phi(*arrays.split_name(phi))
    seen = mri.described(file, mri.Scans(scan, laboratory))
    if seen is not None:
        advice = mri.in_words(seen)
    else:
        advice = contents.advice(str(file), found, phi, sampling.shape[0] if sampling else None)
    orders = []
    if sampling is not None and (laboratory.shape or laboratory.positions):
        orders = _orders(file, laboratory, sampling, model)
        advice = [_command(file, laboratory, orders[0])]
    if as_json:
        listed = [_order_facts(one) for one in orders]
        facts = {name: asdict(content) for name, content in found.items()}
        told = {"file": str(file), "arrays": facts, "orders": listed, "next": advice}
        say_json(told if seen is None else {**told, "kspace": seen})
        return
    say_table(
        contents.COLUMNS,
        [one.row(name) for name, one in itertools.islice(found.items(), _SHOWN)],
        left=5,
    )
    if len(found) > _SHOWN:
        say(f"… and {len(found) - _SHOWN} more arrays, which --json shows.")
    if orders:
        _say_orders(orders)
    for line in advice[:_SHOWN]:
        say(line)


def _orders(
    file: Path, laboratory: lab.LabOptions, phi: "Phi", model: str
) -> "list[arrangements.Candidate]":
    """The orders of the values, the best first."""
    from csrecon import api
    from csrecon.cli import parse
    from csrecon.evaluation import arrangements
    from csrecon.io import arrays
    from csrecon.runtime import execution

    values = arrays.pick(file, laboratory.var)
    setup = execution.choose()
    network = api.load(model, phi.shape[0] / phi.shape[1])
    block = (laboratory.block, laboratory.block) if laboratory.block else None

    with progress() as bar:
        task = bar.add_task("orders", total=None)
        return arrangements.rank(
            values,
            phi,
            parse.shape(laboratory.shape),
            laboratory.arrangement(),
            lambda m: execution.image(network, m, setup),
            block,
            lambda done, total: bar.update(task, completed=done, total=total),
        )


def _order_facts(one: "arrangements.Candidate") -> dict[str, Any]:
    return {
        "pixel_order": one.arrangement.pixel_order,
        "block_order": one.arrangement.block_order,
        "gain": one.arrangement.gain,
        "unpredicted": round(one.unpredicted, 4),
        "behind_db": round(one.behind, 3),
    }


def _say_orders(orders: "Sequence[arrangements.Candidate]") -> None:
    """Print the ranking, and what it cannot tell apart."""
    from csrecon.evaluation import arrangements

    say_table(
        ["--pixel-order", "--block-order", "--gain", "held-out error (dB)", "not predicted"],
        [one.row for one in orders],
        left=2,
    )
    for line in arrangements.doubts(orders):
        say(line)


def _command(file: Path, laboratory: lab.LabOptions, best: "arrangements.Candidate") -> str:
    """The command that reconstructs with an order."""
    found = best.arrangement
    said = replace(laboratory, pixel_order=found.pixel_order, block_order=found.block_order)
    if laboratory.gain == _NOTHING_SAID.gain:
        said = replace(said, gain=best.gain)
    typed = shlex.join(["csrecon", "reconstruct", str(file), *lab.words(said), "--check"])
    return f"next: {typed}"


def _own(file: Path, phi: str | None, as_json: bool) -> None:
    """Verify a file written by csrecon and describe it."""
    from csrecon.io import arrays
    from csrecon.sensing import contents, native
    from csrecon.sensing.operators import BlockOperator

    sampling = native.read_phi(*arrays.split_name(phi)) if phi else None
    measured = native.load(file, native.Given(phi=sampling))
    operator = measured.operator
    height, width = operator.image_shape
    facts: dict[str, Any] = {
        "file": str(file),
        "operator": operator.spec().kind,
        "height": height,
        "width": width,
        "color": measured.format.color,
        "ratio": operator.ratio,
        "noise": measured.noise,
    }
    if isinstance(operator, BlockOperator):
        facts |= {
            "block": list(operator.block),
            "m": operator.m,
            "phi": {"kind": operator.phi.kind, "seed": operator.phi.seed},
            "orthonormal": operator.tight,
            "missing_blocks": contents.missing_blocks(operator),
        }
    if as_json:
        say_json(facts)
        return
    said = contents.summary(measured)
    say(f"{file}: a measurement of csrecon, complete and verified: {said}.")
    say(f"next: csrecon reconstruct {file}")
