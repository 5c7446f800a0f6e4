"""Round models: what they say along one device, from below, and at known plans."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.rounds import (
    ROUND_MODELS,
    Progress,
    RankCost,
    RoundModel,
    SamplingTerm,
    SmoothnessScaled,
    Tables,
)

RANK = 8
OPTIONS = np.arange(1, RANK + 1) / RANK


def random_model(name: str, devices: int, rng: np.random.Generator) -> RoundModel:
    base, sampling = 10 ** rng.uniform(0, 2), 10 ** rng.uniform(0, 3)
    match name:
        case "progress":
            return Progress(base, sampling, rng.uniform(0, 2))
        case "sampling":
            return SamplingTerm(base, sampling)
        case "rank-cost":
            return RankCost(base, sampling, 10 ** rng.uniform(-1, 1))
        case "smoothness":
            return SmoothnessScaled(base, sampling)
        case _:
            per_probability = rng.exponential(1.0, (RANK, devices))
            fixed = rng.normal(0.0, 1.0, (RANK, devices))
            return Tables(base + 5.0 * devices, per_probability, fixed)


def random_fleet(devices: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Weights, variance shares (with completions below one), ratios and probabilities."""
    weight = rng.dirichlet(np.full(devices, 0.7))
    square = np.exp(rng.normal(0.0, 0.5, devices))
    variance = weight**2 * square / np.dot(weight, square) / rng.uniform(0.3, 1.0, devices)
    ratio = rng.integers(1, RANK + 1, devices) / RANK
    return weight, variance, ratio, 10 ** rng.uniform(-2, 0, devices)


NAMES = pytest.mark.parametrize("name", ROUND_MODELS)
FLEETS = given(devices=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))


def test_models_go_by_their_names():
    assert list(ROUND_MODELS) == ["progress", "sampling", "rank-cost", "smoothness", "tables"]
    assert all(model.name == name for name, model in ROUND_MODELS.items())


@NAMES
@FLEETS
def test_along_a_device_is_what_the_rounds_become(name, devices, seed):
    rng = np.random.default_rng(seed)
    model = random_model(name, devices, rng)
    weight, variance, ratio, probability = random_fleet(devices, rng)
    option = rng.uniform(1 / RANK, 1.0, (3, devices))  # real ranks too
    along = model.along(weight, variance, ratio, probability, option)
    for n, c in itertools.product(range(devices), range(3)):
        for q in (0.02, probability[n], 1.0):
            other_ratio, other_q = ratio.copy(), probability.copy()
            other_ratio[n], other_q[n] = option[c, n], q
            expected = model.rounds(weight, variance, other_ratio, other_q)
            found = along.fixed[c, n] + along.per_probability[c, n] / q
            assert found == pytest.approx(float(expected), rel=1e-10)


@NAMES
@FLEETS
def test_no_plan_falls_below_the_minorant(name, devices, seed):
    rng = np.random.default_rng(seed)
    model = random_model(name, devices, rng)
    weight, variance, ratio, _ = random_fleet(devices, rng)
    option = np.sort(rng.choice(OPTIONS, 4, replace=False))
    sums = model.minorant(weight, variance, ratio, option)
    assert sums is not None
    for one in sums:
        assert one.per_probability.shape == one.fixed.shape == (4, devices)
        assert np.all(one.per_probability >= 0)
    device = np.arange(devices)
    for _ in range(20):
        pick = rng.integers(0, 4, devices)
        q = 10 ** rng.uniform(-2, 0, devices)
        values = [
            one.constant + np.sum(one.per_probability[pick, device] / q + one.fixed[pick, device])
            for one in sums
        ]
        assert len(sums) == 1 or min(values) > 0
        assert np.prod(values) <= model.rounds(weight, variance, option[pick], q) * (1 + 1e-12)


@NAMES
@FLEETS
def test_minorant_is_tight_at_its_plan(name, devices, seed):
    rng = np.random.default_rng(seed)
    model = random_model(name, devices, rng)
    weight, variance, ratio, probability = random_fleet(devices, rng)
    k, n = np.rint(ratio * RANK).astype(int) - 1, np.arange(devices)
    product = np.prod(
        [
            one.constant + np.sum(one.per_probability[k, n] / probability + one.fixed[k, n])
            for one in model.minorant(weight, variance, ratio, OPTIONS)
        ]
    )
    rounds = float(model.rounds(weight, variance, ratio, probability))
    assert product == pytest.approx(rounds, rel=1e-10)


@pytest.mark.parametrize(
    ("model", "full", "halved", "rare"),
    [
        # Four equal devices, A_n = 1/16. Full: k = r, q = 1. Halved: k = r/2. Rare: q = 1/4.
        (Progress(20, 8, 1.0), 22.0, 44.0, 28.0),
        (SamplingTerm(20, 8), 20.0, 22.0, 26.0),
        (RankCost(20, 8, 3), 25.0, 28.0, 31.0),
        (SmoothnessScaled(20, 8), 22.0, 44.0, 28.0),
        (Tables(1.0, np.full((2, 4), 2.0), [[4.0] * 4, [3.0] * 4]), 21.0, 25.0, 45.0),
    ],
)
def test_rounds_of_equal_devices(model, full, halved, rare):
    weight, one = np.full(4, 0.25), np.ones(4)
    plans = np.stack([one, one / 2, one]), np.stack([one, one, one / 4])
    found = model.rounds(weight, weight**2, *plans)
    np.testing.assert_allclose(found, [full, halved, rare], rtol=1e-14)


@pytest.mark.parametrize("name", ["progress", "sampling", "rank-cost", "smoothness"])
@FLEETS
def test_rank_and_probability_save_rounds(name, devices, seed):
    rng = np.random.default_rng(seed)
    model = random_model(name, devices, rng)
    weight, variance, ratio, probability = random_fleet(devices, rng)
    more = np.minimum(1.0, ratio + rng.integers(0, RANK, devices) / RANK)
    oftener = probability + rng.uniform(0, 1, devices) * (1 - probability)
    few = float(model.rounds(weight, variance, more, oftener))
    assert few <= float(model.rounds(weight, variance, ratio, probability)) * (1 + 1e-12)
    order = rng.permutation(devices)
    fleet = (weight, variance, more, oftener)
    assert few == pytest.approx(float(model.rounds(*(x[order] for x in fleet))), rel=1e-12)


def test_ranks_are_vacuous_where_noise_is(make_problem):
    """Without sampling noise only the rank's own terms are left."""
    p = make_problem(5, 2)
    ratio, q = np.linspace(0.2, 1.0, 5), np.linspace(0.1, 1.0, 5)
    mean = float(np.dot(p.weight, 1 / ratio))
    for model, expected in (
        (SamplingTerm(20, 0), 20.0),
        (RankCost(20, 0, 3), 20 + 3 * mean),
        (SmoothnessScaled(20, 0), 20 * mean),
        (Progress(20, 0, 0), 20.0),
    ):
        assert float(model.rounds(p.weight, p.variance, ratio, q)) == pytest.approx(expected)


def test_tables_of_a_separable_model_are_that_model():
    rng = np.random.default_rng(4)
    weight, variance, ratio, probability = random_fleet(5, rng)
    model = RankCost(20.0, 300.0, 2.0)
    (exact,) = model.minorant(weight, variance, ratio, OPTIONS)
    tables = Tables(exact.constant, exact.per_probability, exact.fixed)
    assert float(tables.rounds([], [], ratio, probability)) == pytest.approx(
        float(model.rounds(weight, variance, ratio, probability)), rel=1e-12
    )


def test_tables_are_linear_between_ranks():
    tables = Tables(3.0, [[4.0], [2.0], [2.0]], [[1.0], [0.0], [6.0]])
    rounds = [float(tables.rounds([1.0], [1.0], [k / 3], [0.5])) for k in (1, 1.25, 2, 2.5, 3)]
    np.testing.assert_allclose(rounds, [12.0, 10.75, 7.0, 10.0, 13.0], rtol=1e-12)
    single = Tables(3.0, [[4.0]], [[1.0]])
    assert float(single.rounds([1.0], [1.0], [1.0], [0.5])) == 12.0


@pytest.mark.parametrize(
    ("model", "constant"),
    [
        (model, constant)
        for model, constants in (
            (Progress, ("base", "sampling", "rank_exponent")),
            (SamplingTerm, ("base", "sampling")),
            (RankCost, ("base", "sampling", "rank")),
            (SmoothnessScaled, ("base", "sampling")),
        )
        for constant in constants
    ],
)
def test_bad_constant_is_named(model, constant):
    good = {"base": 1.0, "sampling": 1.0, "rank": 1.0, "rank_exponent": 1.0}
    good = {name: good[name] for name in model.__dataclass_fields__ if name in good}
    model(**good)
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"^{constant} is {bad}: give"):
            model(**(good | {constant: bad}))
    if constant == "base":
        with pytest.raises(ValueError, match=r"^base is 0"):
            model(**(good | {"base": 0.0}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"constant": np.nan}, "^constant is nan"),
        ({"constant": -9.0}, "^constant is -9.0: some plan would take -3 rounds"),
        ({"per_probability": [1.0, 2.0]}, "^per_probability has shape"),
        ({"per_probability": [[1.0, -2.0], [0.0, 0.0]]}, "^per_probability of device 1 at rank 1"),
        ({"fixed": [[1.0, 2.0], [np.inf, 0.0]]}, "^fixed of device 0 at rank 2"),
        ({"fixed": [[1.0, 2.0]]}, "^fixed has shape"),
    ],
)
def test_bad_table_is_named(change, message):
    good = {"constant": 1.0, "per_probability": [[2.0, 2.0], [3.0, 1.0]]}
    good["fixed"] = [[1.0, 1.0], [2.0, 3.0]]
    Tables(**good)
    with pytest.raises(ValueError, match=message):
        Tables(**(good | change))


def test_tables_refuse_another_fleet_and_unknown_ranks():
    tables = Tables(1.0, np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"^fixed has 3 devices"):
        tables.rounds(np.ones(2) / 2, np.ones(2), np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match=r"^fixed has the ranks 1 to 2"):
        tables.rounds(np.ones(3) / 3, np.ones(3), np.full(3, 0.25), np.ones(3))
