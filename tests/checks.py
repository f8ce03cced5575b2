"""Contracts that every operator and every reconstructor has to keep."""

import copy
import math

import pytest
import torch
from torch import Tensor

from csrecon.errors import InputError
from csrecon.reconstructors.base import Reconstructor
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime.tiles import Tiles
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import Blocks, LinearOperator
from csrecon.sensing.operators.base import Scaled

SHAPES = [(1, 1), (33, 33), (34, 65), (256, 256)]
_TIGHT = 1e-3  # rows in float32 count as orthonormal within 1e-4
_STEPS = 30  # of the power method, and of conjugate gradients


def check_operator(operator: LinearOperator) -> None:
    """Everything that base.py says of an operator, on random values."""
    exact = copy.deepcopy(operator).double()
    _check_linear_map(exact)
    if type(operator).spec is not LinearOperator.spec:  # else it has no file format
        _check_spec(operator)
    u = _values((4, *operator.y_shape), torch.float32)
    # Of blocks, what is said of A Aᵀ holds before the image is cropped: block by block.
    local, u = operator.split(u) if isinstance(operator, Blocks) else (operator, u)
    assert local.tight == operator.tight
    off = (local(local.adjoint(u)) - u).abs().max()
    assert bool(off < _TIGHT) == operator.tight
    _check_normalized(operator)
    _check_same_solutions(local)


def _values(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=draw, dtype=dtype)


def _check_linear_map(operator: LinearOperator) -> None:
    """Shapes, linearity, true adjoint, gradient, ratio, and the block form."""
    x, z = _values((5, *operator.domain)).split([2, 3])
    z = z[:2]
    assert operator.image_shape == operator.domain[1:]
    y = operator(x)
    assert y.shape == (2, *operator.y_shape)
    assert 0 < operator.ratio <= 1

    torch.testing.assert_close(operator(2 * x - 3 * z), 2 * y - 3 * operator(z))

    u = _values((2, *operator.y_shape))
    back = operator.adjoint(u)
    assert back.shape == x.shape
    torch.testing.assert_close((y * u).sum(), (x * back).sum())

    point = x.clone().requires_grad_()
    (0.5 * (operator(point) - u).square().sum()).backward()
    torch.testing.assert_close(operator.gradient(x, u), point.grad)

    if isinstance(operator, Blocks):
        local, local_y = operator.split(y)
        joined = operator.join(local.double().adjoint(local_y))
        torch.testing.assert_close(joined, operator.adjoint(y))


def _check_spec(operator: LinearOperator) -> None:
    """What is written down, as JSON and arrays, is the same operator again."""
    spec = operator.spec()
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec
    assert spec.y_shape(operator.domain) == operator.y_shape
    assert spec.pixels(operator.domain) >= math.prod(operator.image_shape)
    spec.check(operator.domain, (3, *operator.y_shape))
    with pytest.raises(InputError, match="does not fit"):
        spec.check(operator.domain, (3, *operator.y_shape, 1))
    again = spec.build(operator.domain, operator.arrays())
    assert type(again) is type(operator)
    x = _values((1, *operator.domain), torch.float32)
    assert torch.equal(again(x), operator(x))
    assert again.ratio == operator.ratio
    assert torch.equal(again.adjoint(operator(x)), operator.adjoint(operator(x)))


def _check_normalized(operator: LinearOperator) -> None:
    """‖A‖ ≤ 1 by the power method, and idempotence."""
    y = operator(_values((1, *operator.domain), torch.float32))
    normal, normal_y, _ = operator.normalized(y, 0.0)
    again, again_y, noise = normal.normalized(normal_y, 0.1)
    assert again is normal
    assert torch.equal(again_y, normal_y)
    assert noise == 0.1
    x = _values((1, *operator.domain), torch.float32)
    for _ in range(_STEPS):
        x = x / x.norm()
        x = normal.adjoint(normal(x))
    assert float(x.norm()) <= 1 + _TIGHT


def _check_same_solutions(operator: LinearOperator) -> None:
    """A x = y and the normalized problem have the same solutions, and noise as is said."""
    x = _values((64, *operator.domain), torch.float32)
    y = operator(x)
    normal, normal_y, _ = operator.normalized(y, 0.0)
    scale = 1 + float(normal_y.abs().max())
    torch.testing.assert_close(normal(x), normal_y, atol=_TIGHT * scale, rtol=0)
    if normal is not operator and not isinstance(normal, Scaled):  # else it is A up to a factor
        found, limit = _least_norm(normal, normal_y), _TIGHT * (1 + float(y.abs().max()))
        torch.testing.assert_close(operator(found), y, atol=limit, rtol=0)
    noise = 0.1 * _values(tuple(y.shape), torch.float32)
    _, noisy_y, said = operator.normalized(y + noise, 0.1)
    assert abs(float((noisy_y - normal_y).square().mean().sqrt()) - said) < 0.25 * said


def _least_norm(operator: LinearOperator, y: Tensor) -> Tensor:
    """The least solution of A x = y: conjugate gradients on A Aᵀ u = y."""
    u, residual = torch.zeros_like(y), y
    direction = residual
    for _ in range(_STEPS):
        energy = residual.square().sum()
        if energy <= 1e-12 * y.square().sum():
            break
        image = operator(operator.adjoint(direction))
        step = energy / (direction * image).sum()
        u, residual = u + step * direction, residual - step * image
        direction = residual + residual.square().sum() / energy * direction
    return operator.adjoint(u)


def check_reconstructor(model: Reconstructor, m: Measurement) -> None:
    """Shape, finiteness, determinism, counted steps, and the measurement left as it was."""
    before = m.y.clone(), m.operator.adjoint(m.y).clone()
    with torch.inference_mode():
        steps = list(model.steps(m))
        again = model(m)
    assert steps
    final = steps[-1].image
    for step in steps:
        assert step.image.shape == (len(m.y), *m.operator.domain)
        assert step.image.dtype == torch.float32
        assert torch.isfinite(step.image).all()
    assert torch.equal(final, again)
    assert [step.index for step in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].total == len(steps)
    if steps[-1].stopped in ("", "iterations"):
        assert {step.total for step in steps} == {len(steps)}
    assert all(step.total >= len(steps) for step in steps)
    assert not any(step.stopped for step in steps[:-1])
    assert torch.equal(m.y, before[0])
    assert torch.equal(m.operator.adjoint(m.y), before[1])


def check_tiled(net: Unfolding, m: Measurement) -> int:
    """Every iterate computed in tiles is that of the whole image; the number of iterates."""
    with torch.inference_mode():
        whole = [step.image for step in net.steps(m)]
        tiled = [step.image for step in net.applied(Tiles(64)).steps(m)]
    for a, b in zip(whole, tiled, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)
    return len(whole)
