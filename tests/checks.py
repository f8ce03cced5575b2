"""Contracts that every operator and every reconstructor has to keep."""

from itertools import pairwise

import torch

from csrecon.measurement import Measurement
from csrecon.operators import LinearOperator
from csrecon.recursion import Reconstructor

SHAPES = [(1, 1), (33, 33), (34, 65), (256, 256)]


def check_operator(operator: LinearOperator) -> None:
    """Shapes, linearity, true adjoint, gradient, ratio, and the block form of an operator."""
    draw = torch.Generator().manual_seed(0)
    height, width = operator.image_shape
    operator = operator.double()
    x = torch.randn(2, 1, height, width, generator=draw, dtype=torch.float64)
    z = torch.randn(2, 1, height, width, generator=draw, dtype=torch.float64)
    y = operator(x)
    assert y.shape == (2, *operator.y_shape)
    assert 0 < operator.ratio <= 1

    torch.testing.assert_close(operator(2 * x - 3 * z), 2 * y - 3 * operator(z))

    u = torch.randn(y.shape, generator=draw, dtype=torch.float64)
    back = operator.adjoint(u)
    assert back.shape == x.shape
    torch.testing.assert_close((y * u).sum(), (x * back).sum())

    point = x.clone().requires_grad_()
    (0.5 * (operator(point) - u).square().sum()).backward()
    torch.testing.assert_close(operator.gradient(x, u), point.grad)

    local, local_y = operator.per_block(y)
    joined = operator.join_blocks(local.double().adjoint(local_y))
    torch.testing.assert_close(joined, operator.adjoint(y))


def check_reconstructor(model: Reconstructor, m: Measurement) -> None:
    """Shape, finiteness, determinism, counted steps, and the measurement left as it was."""
    before = m.y.clone(), m.operator.adjoint(m.y).clone()
    with torch.inference_mode():
        steps = list(model.steps(m))
        again = model(m)
    final = steps[-1].image
    assert final.shape == (len(m.y), 1, *m.operator.image_shape)
    assert final.dtype == torch.float32
    assert all(torch.isfinite(step.image).all() for step in steps)
    assert torch.equal(final, again)
    assert [step.index for step in steps] == list(range(1, len(steps) + 1))
    assert {step.total for step in steps} == {len(steps)}
    assert all(not torch.equal(a.image, b.image) for a, b in pairwise(steps))
    assert torch.equal(m.y, before[0])
    assert torch.equal(m.operator.adjoint(m.y), before[1])
