"""Self-test: every stage of a reconstruction is compared with values stored in the package.

The image is computed by a formula, so the file stores only the results.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from csrecon import zoo
from csrecon.errors import CheckError
from csrecon.io import files, images
from csrecon.runtime import execution
from csrecon.sensing import sample as sampling
from csrecon.sensing.operators import BlockOperator, SamplingOptions
from csrecon.zoo.cards import BUNDLED

MODEL = "rcoast"
GOLDEN = BUNDLED / "golden_rcoast.npz"
SHAPE = (50, 70)
RATIO = 0.1
IPL = 4


@dataclass(frozen=True)
class Check:
    """A stage, the largest absolute difference from the stored values, and the tolerance."""

    stage: str
    difference: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the difference is within the tolerance; NaN is not."""
        return self.difference <= self.allowed


def scene() -> NDArray[np.float32]:
    """A smooth synthetic image with one edge, (50, 70) in [0, 1]."""
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float64)
    waves = 0.5 + 0.25 * np.sin(row / 5) * np.cos(column / 7)
    return np.asarray(waves + 0.2 * (row + column > 60), dtype=np.float32)


def compute(device: torch.device, model: str | Path = MODEL) -> dict[str, NDArray[np.float32]]:
    """Φ's fingerprint, y, and the reconstruction, by their names in the file."""
    m = sampling.sample(images.from_array(scene()), SamplingOptions(ratio=RATIO))
    network = execution.at_ipl(zoo.load(model, RATIO), IPL)
    setup = execution.choose(device, "fp32")
    image = execution.image(network, m, setup)[0, 0].numpy()
    assert isinstance(m.operator, BlockOperator)
    fingerprint = np.array(m.operator.phi.fingerprint, np.float32)
    return {"fingerprint": fingerprint, "y": m.y.numpy(), "image": image}


def run(device: torch.device) -> list[Check]:
    """Compute on a device and compare.

    Raises:
        CheckError: the stored values are missing.
        InputError: they are damaged.
    """
    if not GOLDEN.exists():
        raise CheckError(f"{GOLDEN}: the stored values are missing; reinstall csrecon.")
    stored = files.read_npz(GOLDEN)
    ours = compute(device)
    rounding = 1e-3 if device.type == "cpu" else 1e-2  # GPUs convolve in TF32
    allowed = {"fingerprint": 1e-5, "y": 1e-4, "image": rounding}
    stages = {"fingerprint": "Φ from its seed", "y": "measuring", "image": "reconstruction"}
    return [
        Check(stages[key], float(np.abs(ours[key] - stored[key]).max()), allowed[key])
        for key in allowed
    ]
