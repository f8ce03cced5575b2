"""What a measurement file says about itself: `y.json`, and `metadata` in a .npz.

Version 2 adds blocks that were not measured, and known noise; what needs neither is written as
version 1, which every csrecon reads.
"""

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from csrecon.errors import InputError
from csrecon.images import BitDepth, Color

VERSION = 2


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageFacts(_Part):
    """The image that was measured."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    color: Color
    bit_depth: BitDepth


class PhiFacts(_Part):
    """The identity of Φ."""

    kind: str
    seed: int | None = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    fingerprint: tuple[float, ...] = Field(min_length=16, max_length=16)


class OperatorFacts(_Part):
    """How Φ was applied; `missing` blocks (row, column) were not measured (version 2)."""

    kind: Literal["block"]
    m: int = Field(ge=1)
    n: int = Field(ge=1)
    block: tuple[int, int]
    phi: PhiFacts
    missing: tuple[tuple[int, int], ...] = ()


class NoiseFacts(_Part):
    """The noise on y, as far as it is known (version 2)."""

    sigma: float = Field(gt=0, allow_inf_nan=False)


class ArrayFacts(_Part):
    """The measured values."""

    shape: tuple[int, int, int, int]
    dtype: Literal["<f4"]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Sidecar(_Part):
    """Everything that `y.json` holds."""

    format: Literal["csrecon-measurement"] = "csrecon-measurement"
    version: Literal[1, 2] = 1
    image: ImageFacts
    operator: OperatorFacts
    normalisation: Literal["pixels in [0, 1]"] = "pixels in [0, 1]"
    noise: NoiseFacts | None = None
    y: ArrayFacts
    written_by: dict[str, str]


def parse(text: str, label: str) -> Sidecar:
    """Sidecar of its JSON; InputError for anything else, with `label` in its message."""
    try:
        version = json.loads(text).get("version")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{label}: not the JSON of a measurement ({error}).") from error
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"{label}: written in format version {version}, and this csrecon reads up to "
            f"{VERSION}. Update csrecon."
        )
    try:
        return Sidecar.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3]
        )
        raise InputError(f"{label}: not a valid measurement sidecar ({faults}).") from error
