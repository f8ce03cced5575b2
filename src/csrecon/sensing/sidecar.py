"""The metadata of a measurement file: `y.json`, or `metadata` in a .npz.

Version 3 stores the spec of the operator, tagged by its kind, and lists every array. Versions 1 and
2 had block operators only, and y as the only array; they are converted to version 3 when read.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
)

from csrecon.errors import InputError
from csrecon.io.images import BitDepth, Color
from csrecon.sensing.operators import OPERATORS, OperatorSpec

VERSION = 3
MARK: Literal["csrecon-measurement"] = "csrecon-measurement"
"""The `format` of every sidecar."""

LARGEST = 1e18
"""The largest σ or gain that is stored: its square is a finite float32."""


def _of_its_kind(given: Any) -> Any:
    """The spec of the kind that is written, so that OPERATORS alone lists the kinds."""
    if not isinstance(given, dict):
        return given
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in OPERATORS:
        raise ValueError(f"kind of operator {kind!r}: known: {', '.join(OPERATORS)}")
    return OPERATORS[kind].model_validate_json(json.dumps(given), strict=True)


AnySpec = Annotated[SerializeAsAny[OperatorSpec], BeforeValidator(_of_its_kind)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageFacts(_Part):
    """The image that was measured; `complex` is one plane of two channels."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    color: Color
    bit_depth: BitDepth


class NoiseFacts(_Part):
    """The noise on y, if it is known."""

    sigma: float = Field(gt=0, le=LARGEST, allow_inf_nan=False)


class ArrayFacts(_Part):
    """An array of the measurement: shape, NumPy dtype, and the SHA-256 of its bytes."""

    shape: tuple[int, ...] = Field(min_length=1, max_length=8)
    dtype: Literal["<f4", "|u1"]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Sidecar(_Part):
    """Everything that `y.json` holds."""

    format: Literal["csrecon-measurement"] = MARK
    version: Literal[3] = 3
    image: ImageFacts
    operator: AnySpec
    normalisation: Literal["pixels in [0, 1]"] = "pixels in [0, 1]"
    scale: float = Field(1.0, allow_inf_nan=False)
    noise: NoiseFacts | None = None
    arrays: dict[str, ArrayFacts]
    written_by: dict[str, str]


def parse(text: str, label: str) -> Sidecar:
    """Parse the JSON of a sidecar; raise InputError, with `label` in it, for anything else."""
    try:
        content = json.loads(text)
        version = content.get("version", 1)
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{label}: not the JSON of a measurement ({error}).") from error
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"{label}: written in format version {version}, and this csrecon reads up to "
            f"{VERSION}. Update csrecon."
        )
    try:
        return Sidecar.model_validate_json(
            json.dumps(_upgraded(content)) if version in (1, 2) else text, strict=True
        )
    except (ValidationError, ValueError, RecursionError) as error:
        said = faults(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(f"{label}: not a valid measurement sidecar ({said}).") from error


def faults(error: ValidationError) -> str:
    """The first three faults, in words."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])


def _upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """A sidecar of version 1 or 2 as one of version 3."""
    rest = {name: value for name, value in content.items() if name != "y"}
    return {**rest, "version": VERSION, "arrays": {"y": content.get("y")}}
