"""Muon: orthogonal updates of kernels, Adam's of everything else."""

import copy

import pytest
import torch
from torch import nn

from csrecon.reconstructors.nets.frcoast import FrcoastBlock
from csrecon.training.muon import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(64, 576), (64, 72), (20, 8), (5, 5)])
def test_an_orthogonalized_matrix_has_singular_values_near_one(shape):
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=draw)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalized(1e-3 * matrix)
    left = torch.linalg.svdvals(found)
    assert left.min() > 0.6
    assert left.max() < 1.3
    across = u.T @ found @ v.T  # diagonal: the singular vectors are kept
    assert (across - torch.diag(across.diagonal())).abs().max() < 1e-3
    assert not orthogonalized(torch.zeros(shape)).any()


def block_with_gradients():
    torch.manual_seed(0)
    block = FrcoastBlock(6)
    for parameter in block.parameters():
        parameter.grad = torch.randn_like(parameter)
    return block


def test_kernels_move_by_muon_and_the_rest_by_adam():
    block = block_with_gradients()
    before = copy.deepcopy(block.state_dict())
    twin = copy.deepcopy(block)
    for mine, other in zip(block.parameters(), twin.parameters(), strict=True):
        other.grad = mine.grad.clone()
    Muon(block, 1e-3, (0.9, 0.99)).step()
    torch.optim.Adam(twin.parameters(), 1e-3, (0.9, 0.99)).step()
    after, adam = block.state_dict(), twin.state_dict()
    for name, value in after.items():
        if value.ndim == 4 and not name.startswith("tail."):
            moved = (before[name] - value).flatten(1) / 1e-3
            values = torch.linalg.svdvals(moved)
            assert values.max() / values.min() < 2
            assert not torch.allclose(value, adam[name])
        else:
            torch.testing.assert_close(value, adam[name], rtol=1e-5, atol=1e-7)


def test_the_state_continues_exactly():
    block = block_with_gradients()
    optimizer = Muon(block, 1e-3, (0.9, 0.99))
    optimizer.step()
    other = copy.deepcopy(block)
    for mine, twin in zip(block.parameters(), other.parameters(), strict=True):
        twin.grad = mine.grad.clone()
    continued = Muon(other, 1e-3, (0.9, 0.99))
    continued.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one in (optimizer, continued):
        one.step()
    for mine, twin in zip(block.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, twin)


def test_it_learns_a_convolution():
    torch.manual_seed(0)
    target, network = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
    optimizer = Muon(network, 2e-3, (0.9, 0.99))
    x = torch.randn(4, 3, 12, 12)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (network(x) - target(x).detach()).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.05 * losses[0]
