"""`csrecon inspect`: the content of a file of measurements or arrays."""

import itertools
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csrecon import _default
from csrecon.cli import lab, mri
from csrecon.cli.command import Json, progress, say, say_json, say_table
from csrecon.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csrecon.evaluation import arrangements
    from csrecon.sensing.operators import Phi

_SHOWN = 500  # arrays, and lines of advice
_MOST_PRODUCTS = 10**12  # about half a minute
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
    from csrecon.sensing import native

    phi = laboratory.phi
    own = file.suffix.lower() in native.SUFFIXES
    if own and native.describes_itself(file):
        if laboratory != replace(_NOTHING_SAID, phi=phi):
            raise UsageError(
                f"{file}: written by csrecon, with its order and units; only --phi can be given."
            )
        _own(file, phi, as_json)
        return
    found = {name: _facts(value) for name, value in arrays.read(file).items()}
    sampling = None
    if phi is not None:
        sampling = native.read_phi(*arrays.split_name(phi))
    seen = mri.described(file, mri.Scans(scan, laboratory))
    advice = _advice(file, found, phi, sampling) if seen is None else mri.in_words(seen)
    orders = []
    if sampling is not None and (laboratory.shape or laboratory.positions):
        orders = _orders(file, laboratory, sampling, model)
        advice = [_command(file, laboratory, orders[0])]
    if as_json:
        listed = [_order_facts(one) for one in orders]
        facts = {"file": str(file), "arrays": found, "orders": listed, "next": advice}
        say_json(facts if seen is None else {**facts, "kspace": seen})
        return
    say_table(
        ["array", "shape", "type", "range", "as Φ"],
        [
            [name, "×".join(map(str, f["shape"])), f["type"], f["range"], f["phi"]]
            for name, f in itertools.islice(found.items(), _SHOWN)
        ],
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


def _gain(one: "arrangements.Candidate") -> str:
    """A usual gain as a number; any other one has to be estimated."""
    from csrecon.evaluation import arrangements

    gain = one.arrangement.gain
    return "auto" if gain == "auto" or gain not in arrangements.GAINS else f"{gain:g}"


def _say_orders(orders: "Sequence[arrangements.Candidate]") -> None:
    """Print the ranking, and what it cannot tell apart."""
    say_table(
        ["--pixel-order", "--block-order", "--gain", "held-out error (dB)", "not predicted"],
        [
            [
                one.arrangement.pixel_order,
                one.arrangement.block_order,
                _gain(one),
                f"+{one.behind:.2f}",
                f"{100 * one.unpredicted:.0f} %",
            ]
            for one in orders
        ],
        left=2,
    )
    if sum(one.possible for one in orders) > 1:
        say(
            "The first orders differ by less than 0.3 dB: the image of one is that of the other, "
            "transposed, and only its content tells which is right."
        )
    if orders[0].unpredicted > 0.9:
        say("No order predicts the held-out values: another Φ, another array, or strong noise?")


def _command(file: Path, laboratory: lab.LabOptions, best: "arrangements.Candidate") -> str:
    """The command that reconstructs with an order."""
    found = best.arrangement
    said = replace(laboratory, pixel_order=found.pixel_order, block_order=found.block_order)
    if laboratory.gain == _NOTHING_SAID.gain:
        said = replace(said, gain=_gain(best))
    typed = shlex.join(["csrecon", "reconstruct", str(file), *lab.words(said), "--check"])
    return f"next: {typed}"


def _own(file: Path, phi: str | None, as_json: bool) -> None:
    """Verify a file written by csrecon and describe it."""
    from csrecon.io import arrays
    from csrecon.sensing import native
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
    said = f"y of shape {tuple(measured.y.shape)}, ratio {operator.ratio:.4f}"
    if isinstance(operator, BlockOperator):
        missing = 0 if operator.present is None else int((operator.present == 0).sum())
        facts |= {
            "block": list(operator.block),
            "m": operator.m,
            "phi": {"kind": operator.phi.kind, "seed": operator.phi.seed},
            "orthonormal": operator.tight,
            "missing_blocks": missing,
        }
        bh, bw = operator.block
        said = (
            f"blocks of {bh}×{bw}, m/n = {operator.m}/{operator.n} = {operator.ratio:.4f}, Φ "
            f"{operator.phi.kind}, {'' if operator.tight else 'not '}orthonormal rows, {missing} "
            "blocks missing"
        )
    if as_json:
        say_json(facts)
        return
    noise = f", noise σ {measured.noise:.3g}" if measured.noise else ""
    say(
        f"{file}: a measurement of csrecon, complete and verified: {facts['operator']}, "
        f"{height}×{width} {facts['color']}, {said}{noise}."
    )
    classical = facts["operator"] == "identity" or measured.format.color == "complex"
    say(f"next: csrecon reconstruct {file}{' --model fista' if classical else ''}")


def _facts(value: Any) -> dict[str, Any]:
    import numpy as np

    number = value.dtype.kind in "biuf"
    nothing = "complex" if value.dtype.kind == "c" else "no numbers"
    finite = value[np.isfinite(value)] if number else np.empty(0)
    whole = number and finite.size == value.size
    return {
        "shape": list(value.shape),
        "type": str(value.dtype),
        "finite": bool(whole),
        "range": f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else nothing,
        "phi": _as_phi(value) if whole else "",
    }


def _as_phi(value: Any) -> str:
    """Block, ratio and rows of a matrix if it is Φ."""
    from csrecon.sensing.operators import Phi

    if value.ndim != 2 or min(value.shape) < 2 or value.shape[0] >= value.shape[1]:
        return ""
    m, n = value.shape
    side = math.isqrt(n)
    shape = f"{side}×{side} blocks" if side * side == n else "no square block"
    rows = "too large to examine its rows"
    if m * m * n <= _MOST_PRODUCTS:
        try:
            orthonormal = Phi.given(value).rows().orthonormal
        except InputError:  # values that float32 does not have
            return ""
        rows = f"{'' if orthonormal else 'not '}orthonormal"
    return f"{shape}, ratio {m / n:.3f}, {rows}"


def _advice(
    file: Path, found: dict[str, dict[str, Any]], phi: str | None, sampling: "Phi | None"
) -> list[str]:
    """Which arrays fit Φ, and the next command."""
    if sampling is None:
        candidates = [name for name, facts in found.items() if facts["phi"]]
        square = [name for name in candidates if "no square" not in found[name]["phi"]]
        if len(found) == 1 or not candidates:
            return ["next: csrecon inspect " + f"{file} --phi FILE, with the Φ of the measurement."]
        name = (square or candidates)[0]
        phi, m = f"{file}:{name}", found[name]["shape"][0]
    else:
        name, m = "", sampling.shape[0]
    lines = []
    for other, facts in found.items():
        if other == name or not facts["finite"]:
            continue
        shape = facts["shape"]
        if m not in shape and 2 * m not in shape:
            lines.append(f"{other}: no axis of length {m}, so it was not measured with this Φ.")
            continue
        rows = m if m in shape else 2 * m
        blocks = math.prod(shape) // rows
        layout = "blocks-first" if shape[-1] == rows else "measurements-first"
        if shape[0] == shape[-1]:
            layout = "either layout"
        lines.append(f"{other}: {blocks} blocks × {rows} measurements ({layout}).")
        chosen = f" --var {other}" if len(found) > 1 else ""
        pairs = " --differential" if rows != m else ""
        lines.append(
            f"next: csrecon reconstruct {file}{chosen} --phi {phi} --shape HxW{pairs}, and "
            "--pixel-order F where Φ came from MATLAB."
        )
    return lines
