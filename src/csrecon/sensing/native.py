"""Measurement files: `y.npy` (P, *y_shape) with `y.json` beside it, or one `y.npz`.

The sidecar describes how y was measured. It carries the SHA-256 of y and of the operator's data, so
that a stale sidecar or a wrong Φ is refused instead of silently giving a wrong image. An operator
with a seed is generated again and checked; any other Φ or mask is packed in the .npz or must be
given. Nothing is read with pickle, and no path is stored.
"""

import logging
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from csrecon._version import __version__
from csrecon.errors import CsreconError, InputError, UsageError
from csrecon.io import arrays, files, pairs
from csrecon.io.images import PixelFormat
from csrecon.sensing import beside, recorded, sidecar
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi
from csrecon.sensing.operators.base import check_extent
from csrecon.sensing.operators.block import BlockSpec, check_drawn, grid_of
from csrecon.sensing.operators.kinds import DEFAULT_SIDE
from csrecon.sensing.sidecar import ArrayFacts, ImageFacts, NoiseFacts, Sidecar

SUFFIXES = (".npy", ".npz")

log = logging.getLogger(__name__)


def outputs(path: Path) -> tuple[Path, ...]:
    """The files that saving to `path` writes.

    Raises:
        UsageError: a suffix other than .npy and .npz.
    """
    if path.suffix.lower() == ".npy":
        return path, beside.sidecar_path(path)
    if path.suffix.lower() == ".npz":
        return (path,)
    raise UsageError(f"{path}: a measurement file ends in .npy or .npz.")


def _facts(array: NDArray[Any]) -> ArrayFacts:
    kind: Literal["<f4", "|u1"] = "|u1" if array.dtype.kind in "bu" else "<f4"
    return ArrayFacts(shape=array.shape, dtype=kind, sha256=files.sha256(array, kind))


def _describe(m: Measurement, stored: Mapping[str, NDArray[Any]]) -> Sidecar:
    height, width = m.operator.image_shape
    return Sidecar(
        image=ImageFacts(
            height=height, width=width, color=m.format.color, bit_depth=m.format.bit_depth
        ),
        operator=m.operator.spec(),
        scale=m.scale,
        noise=NoiseFacts(sigma=m.noise) if m.noise else None,
        arrays={name: _facts(array) for name, array in stored.items()},
        written_by={
            "csrecon": __version__,
            "numpy": np.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    )


def save(m: Measurement, path: Path, overwrite: bool = False) -> None:
    """Write a measurement to `path`: .npy with its sidecar, or a self-contained .npz.

    Raises:
        UsageError: another suffix, an output that exists, or an operator without a file format.
        InputError: values, noise or scale that no measurement file holds.
        ResourceError: the files cannot be written; none is left half-written.
    """
    outputs(path)  # refuses another suffix
    packed = path.suffix.lower() == ".npz"
    stored: dict[str, NDArray[Any]] = {"y": np.ascontiguousarray(m.y.cpu().numpy(), dtype="<f4")}
    if packed:
        stored |= m.operator.arrays()
    if not np.isfinite(stored["y"]).all():
        raise InputError(f"{path}: y holds NaN or infinite values, so it is not written.")
    try:
        facts = _describe(m, stored).model_dump_json(indent=2)
    except ValidationError as error:
        raise InputError(f"{path}: {sidecar.faults(error)}, so it is not written.") from error
    if packed:
        with files.new_files(path, overwrite=overwrite) as (temporary,):
            files.write_npz(temporary, {**stored, "metadata": np.array(facts)})
        return
    description = beside.sidecar_path(path)
    beside.refuse_shared(path)
    if overwrite:
        beside.refuse_foreign(description)
    with pairs.new_pair(path, description, overwrite) as (values, text):
        files.write_npy(values, stored["y"])
        text.write_text(facts + "\n", encoding="utf-8")


def as_values(array: NDArray[Any], label: str) -> NDArray[np.floating[Any]]:
    """y in float64, or wider where its numbers need it; as_single rounds what is left of them.

    Raises:
        InputError: anything but finite real numbers.
    """
    array = arrays.unmasked(array, label)
    if array.dtype.kind == "c":
        raise InputError(
            f"{label}: complex values ({array.dtype}), and block sampling gives real ones. Give "
            "the real values that were measured; nothing is cast silently."
        )
    if array.dtype.kind not in "fiu" or array.size == 0 or array.ndim == 0:
        raise InputError(
            f"{label}: type {array.dtype}, shape {array.shape}; expected real numbers."
        )
    recorded.notice_saturated(array, label)
    # The 64 bits of an integer do not fit float64, of which a large offset would take the last.
    whole = array.dtype.kind in "iu" and array.itemsize > 4
    wide = np.longdouble if whole or array.itemsize > 8 else np.float64
    values: NDArray[np.floating[Any]] = array.astype(wide)
    finite = np.isfinite(values)
    if not finite.all():
        raise InputError(
            f"{label}: {int((~finite).sum())} of {values.size} values are NaN or infinite; "
            "measurements must be finite."
        )
    return values


def as_single(
    values: NDArray[np.floating[Any]], label: str, remedy: str = "Divide the values by their scale."
) -> NDArray[np.float32]:
    """Finite values as float32, in C order.

    Raises:
        InputError: values that float32 cannot hold, or that all become 0 in it; with the remedy.
    """
    with np.errstate(over="ignore", under="ignore"):
        single = np.ascontiguousarray(values, dtype="<f4")
    limits = np.finfo(np.float32)
    peak = np.abs(values).max()
    if not np.isfinite(single).all() or (peak > 0 and not single.any()):
        raise InputError(
            f"{label}: the largest value is {peak:.3g}, and float32 holds {limits.tiny:.1e} to "
            f"{limits.max:.1e}. {remedy}"
        )
    return single


def read_phi(path: Path, name: str | None = None) -> Phi:
    """Φ from a file of arrays: the array `name`, else `phi`, else the only one.

    Raises:
        InputError: an unreadable file, or an array that is not a sampling matrix.
        UsageError: no such array, or several arrays and no name.
    """
    return Phi.given(arrays.pick(path, name, "--phi FILE:NAME", likely="phi"), str(path))


def from_values(
    y: NDArray[Any],
    shape: tuple[int, int],
    phi: Phi | None = None,
    seed: int | None = None,
    block: tuple[int, int] | None = None,
    label: str = "y",
) -> Measurement:
    """A measurement from bare values.

    Args:
        y: (C, gh, gw, m), (gh, gw, m) or (gh · gw, m); blocks row by row. One plane is gray,
            three are rgb.
        shape: (H, W) of the image in pixels.
        phi: the sampling matrix (m, n); None with a seed.
        seed: of csrecon's gaussian Φ for blocks of `block` pixels; None with `phi`.
        block: (bh, bw); None for square blocks (33×33 with a seed).
        label: name of y in messages.

    Raises:
        UsageError: neither or both of phi and seed.
        InputError: y and Φ of shapes that do not fit, NaN or infinity.
    """
    values = as_single(as_values(y, label), label)
    if len(shape) != 2:
        raise UsageError(f"shape {tuple(shape)}: expected (H, W), the size of the image.")
    if (phi is None) == (seed is None):
        raise UsageError(
            f"{label}: give either the Φ that measured it (--phi FILE, phi=) or the seed of a "
            "gaussian Φ (--seed, seed=)."
        )
    m = values.shape[-1]
    if phi is None:
        assert seed is not None
        bh, bw = block or (DEFAULT_SIDE, DEFAULT_SIDE)
        if m > bh * bw:
            raise InputError(
                f"{label}: {m} measurements per block, more than its {bh}×{bw} pixels."
            )
        _check_blocks(values, shape, (bh, bw), label)
        check_drawn("gaussian", m, (bh, bw), shape)
        phi = Phi.make(m, bh * bw, seed)
    operator = BlockOperator(phi, shape, block)
    if m != operator.m:
        raise InputError(
            f"{label} of shape {y.shape} has {m} measurements per block, and Φ of shape "
            f"{phi.shape} gives {operator.m}. Is this the right Φ?"
        )
    planes = _check_blocks(values, shape, operator.block, label)
    recorded.notice_unwritten(values, label)
    tensor = torch.from_numpy(values.reshape(planes, *operator.y_shape))
    return Measurement.of(operator, tensor, PixelFormat("gray" if planes == 1 else "rgb"))


def _check_blocks(
    values: NDArray[np.float32], shape: tuple[int, int], block: tuple[int, int], label: str
) -> int:
    """Compare the shape of bare values with an image's grid of blocks; return the planes, 1 or 3.

    Raises:
        InputError: another number of blocks or planes, or an image far too large for the values.
    """
    gh, gw = grid_of(shape, block)
    m = values.shape[-1]
    blocks = values.size // m
    planes = values.shape[0] if values.ndim == 4 else 1
    layouts = ((planes, gh, gw, m), (gh, gw, m), (gh * gw, m))
    if values.shape not in layouts or blocks != planes * gh * gw:
        raise InputError(
            f"{label} of shape {values.shape} holds {blocks} blocks, and an image of "
            f"{shape[0]}×{shape[1]} has {gh}×{gw} blocks of {block[0]}×{block[1]}: expected "
            f"(C, {gh}, {gw}, {m}). Is the shape right?"
        )
    if planes not in (1, 3):
        raise InputError(f"{label}: {planes} planes; expected 1 (gray) or 3 (rgb).")
    check_extent(gh * gw * math.prod(block), gh * gw * m)
    return planes


def _from_sidecar(
    facts: Sidecar, y: NDArray[Any], stored: Mapping[str, NDArray[Any]], label: str
) -> Measurement:
    """The measurement that a sidecar describes, from y and the arrays of its operator.

    Raises:
        InputError: a y or an array that does not match the sidecar.
        UsageError: a missing array.
    """
    values = as_single(as_values(y, f"{label}: y"), f"{label}: y")
    known = facts.arrays.get("y")
    if known is None or y.shape != known.shape or files.sha256(values) != known.sha256:
        digest = known.sha256[:12] if known else "none"
        raise InputError(
            f"{label}: the sidecar describes another y (digest {digest}…): one of the two is stale "
            "or damaged. Restore the pair; or remove the sidecar and give --shape with --phi or "
            "--seed yourself."
        )
    pixels = PixelFormat(facts.image.color, facts.image.bit_depth)
    domain = pixels.channels, facts.image.height, facts.image.width
    if len(y) != pixels.planes:
        raise InputError(f"{label}: {len(y)} planes for a {pixels.color} image.")
    try:
        facts.operator.check(domain, y.shape)
        operator = facts.operator.build(domain, stored)
        made = Measurement.of(operator, torch.from_numpy(values), pixels)
    except CsreconError as error:
        raise type(error)(f"{label}: {error}") from error
    return replace(made, noise=facts.noise.sigma if facts.noise else 0.0, scale=facts.scale)


def _packed_metadata(stored: Mapping[str, NDArray[Any]]) -> str | None:
    """csrecon's metadata in a .npz: one text with its mark. Other programs use that name, too."""
    found = stored.get("metadata")
    if found is None or found.ndim or found.dtype.kind != "U" or beside.MARK not in str(found):
        return None
    return str(found)


def describes_itself(path: Path) -> bool:
    """Whether this file has csrecon's metadata, inside it or beside it."""
    if path.suffix.lower() == ".npz":
        return _packed_metadata(files.read_npz(path)) is not None
    description = beside.sidecar_path(path)
    return description.exists() and beside.read_text(description, bare=True) is not None


def refuse_other(target: Path) -> None:
    """Raise UsageError if values are there that csrecon has not written: nothing brings them back.

    That is for outputs which the user has not named.
    """
    try:
        known = not target.is_file() or describes_itself(target)
    except InputError:
        known = False
    if not known:
        raise UsageError(
            f"{target}: holds values that csrecon has not written, and is kept, with --overwrite "
            "too. Give another output with -o, or this one by its name."
        )


@dataclass(frozen=True)
class Given:
    """What a user gives for a measurement file besides its path.

    Attributes:
        phi: Φ, if the file neither packs it nor has its seed.
        mask: the mask of Fourier sampling, likewise.
        seed, shape, block: for bare values, as in `from_values`; not allowed with a sidecar, which
            has its own.
        nominal: `phi` is the nominal Φ of blocks, and need not be the recorded one.
        sensitivities: the maps of the coils of Fourier sampling, like `mask`.
    """

    phi: Phi | None = None
    mask: NDArray[Any] | None = None
    seed: int | None = None
    shape: tuple[int, int] | None = None
    block: tuple[int, int] | None = None
    nominal: bool = False
    sensitivities: NDArray[Any] | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of the operator that are given, by the names that a .npz stores them under."""
        phi = None if self.phi is None else self.phi.matrix
        named = {"phi": phi, "mask": self.mask, "sensitivities": self.sensitivities}
        return {name: array for name, array in named.items() if array is not None}


_NOTHING_GIVEN = Given()


def load(path: Path, given: Given = _NOTHING_GIVEN) -> Measurement:
    """Read a measurement file (.npy with its sidecar, or .npz) and verify it.

    Raises:
        InputError: damaged, stale, not finite, or measured with another operator.
        UsageError: Φ, mask, shape or seed missing, or given although the metadata has them.
    """
    metadata: str | None = None
    stored: dict[str, NDArray[Any]] = {}
    if path.suffix.lower() == ".npz":
        stored = files.read_npz(path)
        if "y" not in stored:
            raise InputError(
                f"{path}: holds {sorted(stored)}, and no array named 'y'. Say which one holds the "
                "values: --var NAME."
            )
        y, metadata = stored.pop("y"), _packed_metadata(stored)
    else:
        y, metadata = beside.read_pair(path, bare=given.shape is not None)
    if metadata is not None:
        if given.seed is not None or given.shape is not None or given.block is not None:
            raise UsageError(
                f"{path}: carries its own metadata; leave out --seed, --shape and --block, or "
                "remove the sidecar to give them yourself."
            )
        stored |= given.arrays()
        facts = sidecar.parse(metadata, str(path))
        if given.nominal and given.phi is not None and isinstance(facts.operator, BlockSpec):
            spec = facts.operator.model_copy(update={"phi": given.phi.facts()})
            facts = facts.model_copy(update={"operator": spec})
        return _from_sidecar(facts, y, stored, str(path))
    phi = given.phi
    if phi is None and given.seed is None and "phi" in stored:
        phi = Phi.given(stored["phi"], f"{path}[phi]")
    missing = [] if given.shape is not None else ["--shape HxW (the image's size)"]
    if phi is None and given.seed is None:
        missing.append("--phi FILE or --seed N (the matrix that measured it)")
    if missing or given.shape is None:
        raise UsageError(
            f"{path}: holds bare values, without the metadata that `csrecon sample` writes, so "
            f"this is missing: {'; '.join(missing)}."
        )
    if phi is not None and y.ndim in (2, 3) and len({*y.shape}) == 1 and y.size > 1:
        raise UsageError(
            f"{path}: y of shape {y.shape} may be blocks or measurements first; say --layout "
            "blocks-first or measurements-first."
        )
    return from_values(y, given.shape, phi, given.seed, given.block, str(path))
