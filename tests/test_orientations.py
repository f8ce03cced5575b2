"""The eight orientations are eight, each has its inverse, and kernels turn with the image."""

import pytest
import torch
from torch.nn.functional import conv2d

from csrecon.reconstructors.orientations import COUNT, oriented, upright


def test_they_are_eight():
    image = torch.arange(9.0).view(3, 3)
    seen = {tuple(oriented(image, k).flatten().tolist()) for k in range(COUNT)}
    assert len(seen) == COUNT
    assert torch.equal(oriented(image, 0), image)


@pytest.mark.parametrize("k", range(COUNT))
def test_upright_is_the_inverse(k):
    image = torch.rand(2, 1, 3, 5)
    turned = oriented(image, k)
    assert turned.shape[-2:] == ((5, 3) if k % 2 else (3, 5))
    assert torch.equal(upright(turned, k), image)


@pytest.mark.parametrize("k", range(COUNT))
def test_kernels_turn_with_the_image(k):
    image, kernel = torch.rand(1, 1, 6, 7), torch.rand(1, 1, 3, 3)
    expected = oriented(conv2d(image, kernel, padding=1), k)
    got = conv2d(oriented(image, k), oriented(kernel, k), padding=1)
    torch.testing.assert_close(got, expected)
