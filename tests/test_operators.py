"""Operators keep their contract; Φ is what the papers say and is recognised for what it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import csrecon
from csrecon.errors import InputError, UsageError
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import (
    KINDS,
    BlockOperator,
    LinearOperator,
    Phi,
    SamplingOptions,
    count_measurements,
    make,
    make_operator,
)
from tests.checks import SHAPES, check_operator


def random_phi(m: int, n: int) -> Phi:
    return Phi.given(np.random.Generator(np.random.PCG64(5)).normal(size=(m, n)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("phi", "block"),
    [
        (Phi.make(109, 1089, 0), None),
        (random_phi(20, 64), None),
        (random_phi(5, 6), (2, 3)),
        (Phi.make(16, 16, 1), None),
        *((make(kind, 100, (16, 32), 3), (16, 32)) for kind in KINDS),
        (make("dct", 300, (33, 33), 0), None),
        (make("hadamard", 32 * 32, (32, 32), 0), None),
    ],
    ids=["gaussian33", "given8", "given2x3", "full4", *KINDS, "dct33", "full-hadamard32"],
)
def test_contract(phi, block, shape):
    check_operator(BlockOperator(phi, shape, block))


@pytest.mark.parametrize("phi", [Phi.make(20, 64, 0), random_phi(20, 64)], ids=["tight", "given"])
def test_contract_with_missing_blocks(phi):
    present = torch.ones(3, 4)
    present[0, 2] = present[2, 0] = 0
    operator = BlockOperator(phi, (24, 30), None, None, present)
    check_operator(operator)
    observed = operator.observed()
    assert observed.shape == (24, 30)
    assert not observed[:8, 16:24].any()
    assert int((~observed).sum()) == 2 * 64
    assert operator.batch_key is None


class Blur(LinearOperator):
    """An operator as a user would write one: the sum of neighbours, 3 times."""

    @property
    def ratio(self):
        return 1.0

    @property
    def y_shape(self):
        return self.domain

    @property
    def tight(self):
        return False

    def forward(self, x):
        return 3 * (x + 0.5 * x.roll(1, -1))

    def adjoint(self, y):
        return 3 * (y + 0.5 * y.roll(-1, -1))


def test_an_operator_of_a_user_is_divided_by_its_norm():
    m = Measurement.of(Blur((1, 24, 30)), Blur((1, 24, 30))(torch.rand(1, 1, 24, 30)))
    normal = replace(m, noise=0.2).normalized()
    assert normal.noise == pytest.approx(0.2 / 4.5, rel=0.01)
    torch.testing.assert_close(normal.y, m.y / 4.5, rtol=0.01, atol=0)
    ones = torch.ones(1, 1, 24, 30)
    torch.testing.assert_close(normal.operator(ones), ones, atol=0.01, rtol=0)
    assert (normal.operator.ratio, normal.operator.y_shape) == (1.0, (1, 24, 30))
    assert normal.normalized() is normal
    x = csrecon.reconstruct(m, "fista", device="cpu")
    torch.testing.assert_close(m.operator(torch.from_numpy(x)[None, None]), m.y, atol=0.05, rtol=0)
    for refused in (m.operator.spec, m.operator.absolute):
        with pytest.raises(UsageError, match="Blur"):
            refused()
    with pytest.raises(UsageError, match="is zero"):
        Measurement.of(Nothing((1, 8, 8)), torch.zeros(1, 1, 8, 8)).normalized()


class Nothing(Blur):
    def forward(self, x):
        return 0 * x

    adjoint = forward


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    block=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    data=st.data(),
)
def test_contract_at_any_size(shape, block, data):
    n = block[0] * block[1]
    m = data.draw(st.integers(1, n))
    check_operator(BlockOperator(Phi.make(m, n, 3), shape, block))


STRUCTURED = ["hadamard", "hadamard-cake", "dct", "pixels"]


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_named_by_seed_and_size(kind):
    phi = make(kind, 24, (8, 16), 1)
    assert phi.shape == (24, 128)
    assert (phi.kind, phi.seed) == (kind, 1)
    again = KINDS[kind](24, (8, 16), 1)
    assert again.sha256 == phi.sha256
    assert again.fingerprint == phi.fingerprint
    other = make(kind, 24, (8, 16), 2)
    assert (other.sha256 == phi.sha256) == (kind == "hadamard-cake")
    assert other.is_same(phi.sha256, phi.fingerprint) == (kind == "hadamard-cake")
    top = make(kind, 9, (8, 16), 1).rows().matrix()
    if kind not in ("bernoulli", "binary", "gaussian"):
        torch.testing.assert_close(phi.rows().matrix()[:9], top)


@pytest.mark.parametrize("kind", STRUCTURED)
def test_structured_rows_are_orthonormal_and_fast(kind):
    phi = make(kind, 24, (8, 16), 1)
    rows = phi.rows()
    matrix = rows.matrix()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(24))
    x = torch.randn(3, 5, 128)
    torch.testing.assert_close(rows(x), x @ matrix.T)
    whole = make(kind, 50_000, (512, 512), 0)  # a dense Φ would hold 13 billion numbers
    image = torch.rand(1, 1, 512, 512)
    check = BlockOperator(whole, (512, 512))
    y = check(image)
    torch.testing.assert_close(check(check.adjoint(y)), y, atol=1e-4, rtol=0)


def test_cake_cutting_begins_with_the_patterns_of_fewest_parts():
    matrix = make("hadamard-cake", 64, (8, 8), 0).rows().matrix()
    parts = [_parts(row.view(8, 8) > 0) for row in matrix]
    assert parts[0] == 1
    assert parts == sorted(parts)
    assert parts[-1] == 64


def _parts(pattern):
    """Connected parts of equal value, by flooding."""
    left = {(i, j) for i in range(8) for j in range(8)}
    count = 0
    while left:
        count += 1
        edge = [left.pop()]
        while edge:
            i, j = edge.pop()
            for near in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if near in left and pattern[near] == pattern[i, j]:
                    left.remove(near)
                    edge.append(near)
    return count


def test_values_of_the_kinds():
    assert set(make("binary", 20, (8, 8), 0).matrix.ravel()) == {0, 1}
    assert {abs(v) for v in make("bernoulli", 20, (8, 8), 0).matrix.ravel()} == {0.125}
    seen = make("pixels", 20, (8, 8), 0).rows().matrix()
    assert ((seen == 1).sum(dim=1) == 1).all()
    flat = make("dct", 64, (8, 8), 0)
    # An unscrambled flat block has one coefficient; scrambled signs spread it.
    assert (flat.rows()(torch.ones(1, 64)).abs() > 1e-3).sum() > 32


@pytest.mark.parametrize(
    ("kind", "block", "message"),
    [("hadamard", (33, 33), "powers of two"), ("dtc", (8, 8), "did you mean 'dct'")],
)
def test_kinds_that_cannot_be(kind, block, message):
    with pytest.raises(UsageError, match=message):
        make(kind, 5, block, 0)


def test_a_structured_phi_has_its_own_block():
    with pytest.raises(InputError, match="this Φ is for blocks of"):
        BlockOperator(make("dct", 5, (4, 9), 0), (20, 20), (6, 6))


def test_one_block_is_phi_times_the_row_major_pixels():
    phi = random_phi(7, 12)
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    y = BlockOperator(phi, (3, 4), (3, 4))(image)
    np.testing.assert_allclose(y[0, 0, 0], phi.matrix @ np.arange(12), rtol=1e-5)


def test_blocks_are_row_major_and_padded_at_the_bottom_and_right():
    identity = Phi.given(np.eye(4))
    y = BlockOperator(identity, (3, 3))(torch.arange(9.0).reshape(1, 1, 3, 3))
    assert y.shape == (1, 2, 2, 4)
    assert y[0, 0, 1].tolist() == [2, 0, 5, 0]
    assert y[0, 1, 0].tolist() == [6, 7, 0, 0]


@pytest.mark.parametrize("m", [1, 11, 109, 545, 1089])
def test_gaussian_rows_are_orthonormal_and_seeded(m):
    phi = Phi.make(m, 1089, 4)
    assert phi.matrix.dtype == np.float32
    np.testing.assert_allclose(phi.matrix @ phi.matrix.T, np.eye(m), atol=1e-5)
    assert phi.sha256 == Phi.make(m, 1089, 4).sha256
    assert phi.sha256 != Phi.make(m, 1089, 5).sha256


def test_fewer_gaussian_rows_are_the_top_of_more():
    np.testing.assert_allclose(
        Phi.make(9, 100, 2).matrix, Phi.make(50, 100, 2).matrix[:9], atol=1e-6
    )


@pytest.mark.parametrize(
    ("ratio", "m"),
    [(0.01, 11), (0.04, 44), (0.1, 109), (0.2, 218), (0.3, 327), (0.4, 436), (0.5, 544)],
)
def test_counts_of_the_paper(ratio, m):
    assert count_measurements(1089, ratio) == m


@pytest.mark.parametrize("ratio", [0, -0.1, 1.0001, float("nan"), float("inf"), 1e-9])
def test_bad_ratio(ratio):
    with pytest.raises(UsageError, match="ratio"):
        count_measurements(1089, ratio)


@pytest.mark.parametrize("m", [0, -1, 1090])
def test_bad_count(m):
    with pytest.raises(UsageError, match="m ="):
        count_measurements(1089, m=m)


def test_ratio_and_count_exclude_each_other():
    with pytest.raises(UsageError, match="give either"):
        count_measurements(1089, 0.1, 109)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((5, 4)), "Transpose"),
        (np.zeros(5), "expected"),
        (np.full((2, 4), np.nan), "NaN"),
        (np.zeros((2, 4), complex), "real"),
        (np.zeros((0, 4)), "expected"),
    ],
)
def test_bad_phi(matrix, message):
    with pytest.raises(InputError, match=message):
        Phi.given(matrix)


def test_phi_without_a_square_block_needs_the_block():
    with pytest.raises(InputError, match="not a square"):
        BlockOperator(random_phi(2, 6), (10, 10))


def test_a_given_phi_is_a_copy():
    matrix = np.eye(4, 9, dtype=np.float32)
    phi = Phi.given(matrix)
    operator = BlockOperator(phi, (3, 3))
    matrix[:] = 0
    assert phi.matrix.sum() == 4
    phi.matrix[:] = 0
    assert operator.rows.matrix().sum() == 4


def test_a_phi_too_large_for_a_seed():
    with pytest.raises(UsageError, match="too large"):
        Phi.make(2**14 + 1, 2**14 + 1, 0)


def test_fingerprint_tells_rounding_from_another_matrix():
    phi = Phi.make(40, 144, 0)
    rounded = Phi.given(np.nextafter(phi.matrix, 2))
    assert rounded.sha256 != phi.sha256
    assert rounded.is_same(phi.sha256, phi.fingerprint)
    others = {
        "seed": Phi.make(40, 144, 1),
        "row order": Phi.given(phi.matrix[::-1]),
        "column order": Phi.given(phi.matrix.reshape(40, 12, 12).swapaxes(1, 2).reshape(40, 144)),
        "scale": Phi.given(1.001 * phi.matrix),
        "sign": Phi.given(-phi.matrix),
    }
    holed = phi.matrix.copy()
    holed[3, 77] = 0
    others["one entry"] = Phi.given(holed)
    swapped = phi.matrix.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    others["two rows"] = Phi.given(swapped)
    for name, other in others.items():
        assert not other.is_same(phi.sha256, phi.fingerprint), name


def test_operators_are_made_by_name():
    options = SamplingOptions("gaussian", ratio=0.25, block=(8, 8))
    operator = make_operator((1, 20, 30), options)
    assert isinstance(operator, BlockOperator)
    assert (operator.m, operator.block, operator.domain) == (16, (8, 8), (1, 20, 30))
    for given_, meant in (("fuorier", "fourier"), ("gausian", "gaussian"), ("identiy", "identity")):
        with pytest.raises(UsageError, match=f"did you mean '{meant}'"):
            make_operator((1, 20, 30), SamplingOptions(given_, ratio=0.25))
    with pytest.raises(UsageError, match="takes no mask"):
        make_operator((1, 20, 30), SamplingOptions("dct", ratio=0.25, mask="random2d"))
    with pytest.raises(InputError, match="complex image"):
        make_operator((2, 20, 30), options)
