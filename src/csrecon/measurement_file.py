"""Measurement files: `y.npy` (C, gh, gw, m) with `y.json` beside it, or one `y.npz`.

The sidecar says how y was made and carries the SHA-256 of y and of Φ, so that a sidecar of
another y, or another Φ, is refused instead of silently giving a wrong image. A seeded Φ is made
again from its seed and checked; any other Φ is asked for, or packed in the .npz. Nothing is read
with pickle, and no path is stored.
"""

import logging
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import csrecon
from csrecon import arrays, files, sidecar
from csrecon.errors import InputError, UsageError
from csrecon.images import PixelFormat
from csrecon.measurement import Measurement
from csrecon.operators import KINDS, BlockOperator, Phi, Sampling, make
from csrecon.operators.kinds import DEFAULT_SIDE
from csrecon.sidecar import (
    ArrayFacts,
    ImageFacts,
    NoiseFacts,
    OperatorFacts,
    PhiFacts,
    Sidecar,
)

SUFFIXES = (".npy", ".npz")

log = logging.getLogger(__name__)


def sidecar_path(path: Path) -> Path:
    """`y.json` of `y.npy`."""
    return path.with_suffix(".json")


def outputs(path: Path) -> tuple[Path, ...]:
    """The files that saving to `path` makes.

    Raises:
        UsageError: a suffix other than .npy and .npz.
    """
    if path.suffix.lower() == ".npy":
        return path, sidecar_path(path)
    if path.suffix.lower() == ".npz":
        return (path,)
    raise UsageError(f"{path}: a measurement file ends in .npy or .npz.")


def _describe(m: Measurement, operator: BlockOperator, y: NDArray[np.float32]) -> Sidecar:
    height, width = operator.image_shape
    phi = operator.phi
    missing: tuple[tuple[int, int], ...] = ()
    if operator.present is not None:
        rows, columns = torch.nonzero(operator.present == 0, as_tuple=True)
        missing = tuple(zip(rows.tolist(), columns.tolist(), strict=True))
    return Sidecar(
        version=2 if missing or m.noise else 1,
        noise=NoiseFacts(sigma=m.noise) if m.noise else None,
        image=ImageFacts(
            height=height, width=width, color=m.format.color, bit_depth=m.format.bit_depth
        ),
        operator=OperatorFacts(
            kind="block",
            m=operator.m,
            n=operator.n,
            block=operator.block,
            phi=PhiFacts(
                kind=phi.kind, seed=phi.seed, sha256=phi.sha256, fingerprint=phi.fingerprint
            ),
            missing=missing,
        ),
        y=ArrayFacts(shape=y.shape, dtype="<f4", sha256=files.sha256(y)),
        written_by={
            "csrecon": csrecon.__version__,
            "numpy": np.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    )


def save(m: Measurement, path: Path, overwrite: bool = False) -> None:
    """Write a measurement to `path`: .npy with its sidecar, or a self-contained .npz.

    Raises:
        UsageError: another suffix, an output that exists, or an operator without a file format.
        ResourceError: the files cannot be written; none is left half-written.
    """
    targets = outputs(path)
    if not isinstance(m.operator, BlockOperator):
        raise UsageError(f"{type(m.operator).__name__} measurements have no file format yet.")
    y = np.ascontiguousarray(m.y.cpu().numpy(), dtype="<f4")
    described = _describe(m, m.operator, y)
    # Readers of version 1 know nothing of missing blocks, and refuse what they do not know.
    unknown = {"operator": {"missing"}} if described.version == 1 else None
    facts = described.model_dump_json(indent=2, exclude=unknown)
    with files.new_files(*targets, overwrite=overwrite) as temporaries:
        if path.suffix.lower() == ".npz":
            packed: dict[str, NDArray[Any]] = {"y": y, "metadata": np.array(facts)}
            if isinstance(m.operator.phi, Phi):
                packed["phi"] = m.operator.phi.matrix
            files.write_npz(temporaries[0], packed)
        else:
            with temporaries[0].open("wb") as stream:
                np.save(stream, y, allow_pickle=False)
            temporaries[1].write_text(facts + "\n", encoding="utf-8")


def as_values(array: NDArray[Any], label: str) -> NDArray[np.float32]:
    """y as float32; InputError for anything but finite real numbers."""
    if array.dtype.kind not in "fiu" or array.size == 0 or array.ndim == 0:
        raise InputError(
            f"{label}: type {array.dtype}, shape {array.shape}; expected real numbers."
        )
    with np.errstate(over="ignore"):
        values = array.astype("<f4")
    finite = np.isfinite(values)
    if not finite.all():
        raise InputError(
            f"{label}: {int((~finite).sum())} of {values.size} values are NaN or infinite; "
            "measurements must be finite."
        )
    return values


def read_phi(path: Path, name: str | None = None) -> Phi:
    """Φ from a file of arrays: the array `name`, or `phi`, or the only one.

    Raises:
        InputError: an unreadable file or an array that is no sampling matrix.
        UsageError: no such array, or several and no name.
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
        phi: the sampling matrix; or
        seed: of the gaussian Φ that `csrecon sample` made, with blocks of `block` pixels.
        block: (bh, bw); None for square blocks (33×33 with a seed).
        label: what to call y in messages.

    Raises:
        UsageError: neither or both of phi and seed.
        InputError: y and Φ of shapes that do not fit, NaN or infinity.
    """
    values = as_values(y, label)
    if len(shape) != 2:
        raise UsageError(f"shape {tuple(shape)}: expected (H, W), the size of the image.")
    if (phi is None) == (seed is None):
        raise UsageError(
            f"{label}: give the Φ that measured it (--phi FILE, phi=) or the seed of a gaussian Φ "
            "(--seed, seed=), one of both."
        )
    m = values.shape[-1]
    if phi is None:
        assert seed is not None
        bh, bw = block or (DEFAULT_SIDE, DEFAULT_SIDE)
        if m > bh * bw:
            raise InputError(f"{label}: {m} measurements a block of {bh}×{bw} pixels.")
        phi = Phi.make(m, bh * bw, seed)
    operator = BlockOperator(phi, shape, block)
    if m != operator.m:
        raise InputError(
            f"{label} of shape {y.shape} has {m} measurements a block, and Φ of shape "
            f"{phi.shape} makes {operator.m}. Is this the right Φ?"
        )
    gh, gw = operator.grid
    blocks = values.size // m
    planes = values.shape[0] if values.ndim == 4 else 1
    layouts = ((planes, gh, gw, m), (gh, gw, m), (gh * gw, m))
    if values.shape not in layouts or blocks != planes * gh * gw:
        raise InputError(
            f"{label} of shape {values.shape} holds {blocks} blocks, and an image of "
            f"{shape[0]}×{shape[1]} has {gh}×{gw} blocks of {operator.block[0]}×"
            f"{operator.block[1]}: expected (C, {gh}, {gw}, {m}). Is the shape right?"
        )
    if planes not in (1, 3):
        raise InputError(f"{label}: {planes} planes; expected 1 (gray) or 3 (rgb).")
    tensor = torch.from_numpy(values.reshape(planes, gh, gw, m))
    return Measurement.of(operator, tensor, PixelFormat("gray" if planes == 1 else "rgb"))


def _resolve_phi(facts: OperatorFacts, given: Phi | None, label: str) -> Sampling:
    recorded = facts.phi
    phi: Sampling | None = given
    if phi is None and recorded.seed is not None:
        if recorded.kind not in KINDS:
            raise InputError(f"{label}: unknown kind of Φ {recorded.kind!r}.")
        if facts.m > facts.n or facts.block[0] * facts.block[1] != facts.n:
            raise InputError(
                f"{label}: implausible Φ of shape ({facts.m}, {facts.n}) for blocks of "
                f"{facts.block} pixels."
            )
        try:
            phi = make(recorded.kind, facts.m, facts.block, recorded.seed)
        except UsageError as error:
            raise InputError(f"{label}: {error}") from error
    if phi is None:
        raise UsageError(
            f"{label}: was measured with a Φ of its own (digest {recorded.sha256[:12]}…), which "
            "is not stored here. Pass it with --phi FILE (phi=)."
        )
    if phi.shape != (facts.m, facts.n):
        raise InputError(
            f"{label}: wrong Φ: it has shape {phi.shape}, and y was measured with shape "
            f"({facts.m}, {facts.n})."
        )
    if not phi.is_same(recorded.sha256, recorded.fingerprint):
        raise InputError(
            f"{label}: wrong Φ: its digest is {phi.sha256[:12]}…, and y was measured with "
            f"{recorded.sha256[:12]}…. Pass the original with --phi FILE."
        )
    if phi.sha256 != recorded.sha256:
        log.info("%s: Φ equals the recorded one up to rounding.", label)
    return phi


def _from_sidecar(facts: Sidecar, y: NDArray[Any], phi: Phi | None, label: str) -> Measurement:
    if y.shape != facts.y.shape or files.sha256(y) != facts.y.sha256:
        raise InputError(
            f"{label}: the sidecar describes another y (digest {facts.y.sha256[:12]}…): one of "
            "the two is stale or damaged. Restore the pair; or remove the sidecar and give "
            "--shape with --phi or --seed yourself."
        )
    resolved = _resolve_phi(facts.operator, phi, label)
    shape = facts.image.height, facts.image.width
    present = None
    if facts.operator.missing:
        present = torch.ones(y.shape[1:3])
        for row, column in facts.operator.missing:
            if not (0 <= row < len(present) and 0 <= column < present.shape[1]):
                raise InputError(f"{label}: missing block {row},{column} lies outside the image.")
            present[row, column] = 0
    operator = BlockOperator(resolved, shape, facts.operator.block, None, present)
    pixel_format = PixelFormat(facts.image.color, facts.image.bit_depth)
    if len(y) != pixel_format.planes:
        raise InputError(f"{label}: {len(y)} planes for a {pixel_format.color} image.")
    made = Measurement.of(operator, torch.from_numpy(as_values(y, label)), pixel_format)
    return replace(made, noise=facts.noise.sigma if facts.noise else 0.0)


def _read_sidecar(path: Path, bare: bool) -> str | None:
    """The text of a sidecar; None for a foreign .json beside values that are given as bare."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error
    if bare and '"csrecon-measurement"' not in text:
        log.info("%s: not written by csrecon, so it is left aside.", path)
        return None
    return text


def describes_itself(path: Path) -> bool:
    """Whether csrecon wrote metadata beside or into this file."""
    if path.suffix.lower() == ".npz":
        return "metadata" in files.read_npz(path)
    beside = sidecar_path(path)
    return beside.exists() and _read_sidecar(beside, bare=True) is not None


def load(
    path: Path,
    phi: Phi | None = None,
    seed: int | None = None,
    shape: tuple[int, int] | None = None,
    block: tuple[int, int] | None = None,
) -> Measurement:
    """Read a measurement file and verify it.

    Args:
        path: .npy (its sidecar is used where there is one) or .npz.
        phi: the Φ, where the file neither packs it nor says its seed.
        seed, shape, block: for bare values, as in `from_values`; a file with a sidecar has its
            own, and takes none of them.

    Raises:
        InputError: damaged, stale, not finite, or measured with another Φ.
        UsageError: what is needed besides and was not given.
    """
    metadata: str | None = None
    if path.suffix.lower() == ".npz":
        packed = files.read_npz(path)
        if "y" not in packed:
            raise InputError(f"{path}: holds {sorted(packed)}, and no array named 'y'.")
        y = packed["y"]
        if "metadata" in packed:
            metadata = str(packed["metadata"])
        if phi is None and seed is None and "phi" in packed:
            phi = Phi.given(packed["phi"], f"{path}[phi]")
    else:
        y = files.read_npy(path)
        beside = sidecar_path(path)
        if beside.exists():
            metadata = _read_sidecar(beside, bare=shape is not None)
    if metadata is not None:
        if seed is not None or shape is not None or block is not None:
            raise UsageError(
                f"{path}: carries its own metadata; leave out --seed, --shape and --block, or "
                "remove the sidecar to give them yourself."
            )
        return _from_sidecar(sidecar.parse(metadata, str(path)), y, phi, str(path))
    missing = [] if shape is not None else ["--shape HxW (the image's size)"]
    if phi is None and seed is None:
        missing.append("--phi FILE or --seed N (the matrix that measured it)")
    if missing or shape is None:
        raise UsageError(
            f"{path}: holds bare values, without what `csrecon sample` writes beside or into "
            f"them, so this is missing: {'; '.join(missing)}."
        )
    return from_values(y, shape, phi, seed, block, str(path))
