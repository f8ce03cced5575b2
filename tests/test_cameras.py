"""The default network takes every kind of Φ: more iterations do not diverge for any of them.

A recursion that was trained with some kinds of Φ can diverge for another one that shows it more of
an error than those did.
"""

import pytest
import torch
from matplotlib import cbook
from PIL import Image

import csrecon
from csrecon import _default, metrics
from csrecon.io.images import from_array
from csrecon.sensing.operators import KINDS

LOSS = 0.5  # dB, at most, from IPL 4 to the default


@pytest.fixture(scope="module")
def photo():
    path = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    with Image.open(path) as whole:
        crop = whole.convert("L").crop((160, 100, 292, 232))
    return torch.frombuffer(bytearray(crop.tobytes()), dtype=torch.uint8).view(132, 132) / 255


@pytest.mark.parametrize("ratio", [0.1, 0.3])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_kind_of_phi_makes_it_diverge(photo, kind, ratio):
    m = csrecon.sample(from_array(photo.numpy()), ratio, kind=kind)
    network = csrecon.load(_default.MODEL)
    few, many = (
        metrics.score(torch.from_numpy(image)[None, None], photo[None, None]).psnr
        for image in (
            csrecon.reconstruct(m, network, 4, "cpu"),
            csrecon.reconstruct(m, network, None, "cpu"),
        )
    )
    assert many >= few - LOSS
