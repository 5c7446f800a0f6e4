"""Fitting round models: what made the pilots is found again, and nothing that they do not tell."""

from dataclasses import replace

import numpy as np
import pytest

from optimizer.rounds import Progress, RankCost, RoundModel, SamplingTerm, SmoothnessScaled
from optimizer.rounds.fit import (
    FITTED,
    NotToldError,
    Pilot,
    Score,
    cross_validate,
    fit,
    without_model,
)

RANK = 16
FACTOR = {11: 0.8, 12: 1.0, 13: 1.25}
TRUTH = (
    Progress(20.0, 4.0, 0.4),
    SamplingTerm(15.0, 3.0),
    RankCost(12.0, 6.0, 2.5),
    SmoothnessScaled(18.0, 5.0),
)
TRUTHS = pytest.mark.parametrize("truth", TRUTH, ids=lambda model: model.name)


def make_pilots(
    truth: RoundModel, noise: float = 0.0, plans: int = 12, seed: int = 0, devices: int = 10
) -> list[Pilot]:
    """Plans of mixed ranks and probabilities, each run on three fleets of unlike weights."""
    rng, pilots = np.random.default_rng(seed), []
    weights = {group: rng.dirichlet(np.full(devices, 2.0)) for group in FACTOR}
    for plan in range(plans):
        ratio = rng.integers(1, RANK + 1, devices) ** rng.uniform(0.5, 1) / RANK
        ratio = np.maximum(np.rint(ratio * RANK), 1) / RANK
        q = 10 ** (rng.uniform(-1.5, -0.3) + rng.uniform(-0.3, 0.3, devices))
        for group, weight in weights.items():
            rounds = float(truth.rounds(weight, weight**2, ratio, q))
            rounds *= FACTOR[group] * np.exp(noise * rng.normal())
            pilots.append(Pilot(f"plan {plan}", group, weight, weight**2, ratio, q, rounds))
    return pilots


@TRUTHS
def test_constants_and_factors_are_found_again(truth):
    found = fit(truth.name, make_pilots(truth))
    for name, value in found.constants.items():
        assert value == pytest.approx(getattr(truth, name), rel=1e-5)
    assert found.factor == pytest.approx(FACTOR, rel=1e-6)  # their geometric mean is one
    assert found.rms < 1e-7
    assert found.interval == {}


@TRUTHS
def test_what_made_the_pilots_predicts_held_out_plans_best(truth):
    exact = cross_validate(make_pilots(truth))
    assert exact[0].model == truth.name
    assert exact[0].worst < 1e-6
    # With an exponent of zero the progress form is the sampling term.
    others = [score for score in exact if score.model not in (truth.name, "progress")]
    assert all(score.median > 0.01 for score in others)
    np.testing.assert_allclose(
        exact[0].predicted, [pilot.rounds for pilot in make_pilots(truth)], rtol=1e-6
    )
    noisy = {score.model: score for score in cross_validate(make_pilots(truth, noise=0.05))}
    assert noisy[truth.name].median < 0.06
    assert set(noisy) == set(FITTED)


def test_intervals_hold_the_constants_and_shrink_with_more_plans():
    truth = Progress(20.0, 4.0, 0.4)
    few = fit("progress", make_pilots(truth, noise=0.08), resamples=60).interval
    many = fit("progress", make_pilots(truth, noise=0.08, plans=48), resamples=60).interval
    for name in ("base", "sampling", "rank_exponent"):
        assert few[name][0] < getattr(truth, name) < few[name][1]
        assert np.ptp(many[name]) < np.ptp(few[name])


def test_equal_pilots_give_equal_bits_and_their_order_does_not_matter():
    pilots = make_pilots(Progress(20.0, 4.0, 0.4), noise=0.1)
    one, again = (fit("progress", pilots, resamples=5) for _ in range(2))
    assert one.constants == again.constants
    assert one.interval == again.interval
    back = fit("progress", pilots[::-1])
    assert back.constants == pytest.approx(one.constants, rel=1e-5)


@TRUTHS
def test_rounds_in_dozens_scale_all_but_the_exponent(truth):
    pilots = make_pilots(truth, noise=0.1)
    one = fit(truth.name, pilots)
    dozens = fit(truth.name, [replace(pilot, rounds=pilot.rounds / 12) for pilot in pilots])
    assert dozens.rms == pytest.approx(one.rms, rel=1e-6)
    for name, value in one.constants.items():
        expected = value if name == "rank_exponent" else value / 12
        assert dozens.constants[name] == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_constants_are_not_negative():
    """More rounds at higher ranks and probabilities: the best that a model can say is nothing."""
    upside_down = [
        replace(pilot, rounds=400 / pilot.rounds) for pilot in make_pilots(RankCost(12, 6, 2.5))
    ]
    for name in FITTED:
        found = fit(name, upside_down).constants
        base = found.pop("base")
        assert all(0 <= value < 0.02 * base for value in found.values()), (name, found)


def test_errors_of_a_plan_are_of_geometric_means():
    pilots = make_pilots(Progress(20.0, 4.0, 0.4))
    found = fit("progress", pilots)
    # Measured twice, half and as often as predicted: the geometric mean is right.
    one = [replace(pilots[0], rounds=pilots[0].rounds * times) for times in (2.0, 0.5, 1.0)]
    assert found.errors(one) == {"plan 0": pytest.approx(0.0, abs=1e-6)}
    assert found.errors(one[:1])["plan 0"] == pytest.approx(-0.5, rel=1e-6)
    # A group without a factor counts as a middling one.
    other = replace(pilots[0], group=99)
    assert found.predict([other])[0] == pytest.approx(pilots[0].rounds / FACTOR[11], rel=1e-6)


def test_scores_are_of_sizes():
    score = Score("progress", {"a": -0.3, "b": 0.1, "c": 0.0}, np.ones(3))
    assert (score.median, score.worst) == (0.1, 0.3)
    assert score.rms == pytest.approx(np.sqrt(0.1 / 3))


def test_of_models_as_good_the_simpler_wins():
    # Progress with an exponent of zero is the sampling term, and noise can make it look better.
    pilots = make_pilots(SamplingTerm(15.0, 3.0), noise=0.03)
    assert FITTED.index("sampling") < FITTED.index("progress")
    for names in (("progress", "sampling"), ("sampling", "progress")):
        first, second = cross_validate(pilots, names)
        assert abs(first.median - second.median) < 0.005
        assert (first.model, second.model) == ("sampling", "progress")


def test_models_that_the_pilots_do_not_tell_are_left_out():
    # At full rank nothing tells what a rank costs.
    pilots = [replace(pilot, ratio=np.ones(10)) for pilot in make_pilots(Progress(20.0, 4.0, 0.0))]
    assert {score.model for score in cross_validate(pilots)} == {"sampling", "smoothness"}


def test_without_a_model_a_plan_takes_what_the_others_took():
    pilots = make_pilots(Progress(20.0, 0.0, 0.0))  # the same rounds for all plans of a seed
    score = without_model(pilots)
    assert score.worst < 1e-12
    np.testing.assert_allclose(score.predicted, [pilot.rounds for pilot in pilots])
    # Twice the rounds of one plan: half of it is predicted, and the others no longer alike.
    one = [replace(pilot, rounds=pilot.rounds * (1 + (pilot.plan == "plan 3"))) for pilot in pilots]
    error = without_model(one).error
    assert error["plan 3"] == pytest.approx(-0.5)
    assert error["plan 0"] == pytest.approx(2 ** (1 / 11) - 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": np.nan}, "rounds of pilot plan 0 are nan"),
        ({"rounds": 0.0}, "rounds of pilot plan 0 are 0.0"),
        ({"ratio": np.ones(3)}, "ratio of pilot plan 0 has shape"),
    ],
)
def test_bad_pilot_is_named(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        replace(make_pilots(Progress())[0], **change)


def test_what_cannot_be_fitted_is_refused():
    pilots = make_pilots(Progress(20.0, 4.0, 0.4))
    with pytest.raises(ValueError, match=r"^name is 'tables': give one of"):
        fit("tables", pilots)
    with pytest.raises(ValueError, match=r"^pilots have fleets of unlike size"):
        fit("progress", [*pilots, *make_pilots(Progress(), devices=4)])
    with pytest.raises(ValueError, match=r"^pilots have fleets of unlike size, or there are none"):
        fit("progress", [])
    with pytest.raises(NotToldError, match=r"^3 pilots in 3 groups do not tell"):
        fit("progress", pilots[:3])
    everybody = [replace(pilot, ratio=np.ones(10)) for pilot in pilots]
    with pytest.raises(NotToldError, match=r"do not tell rank_exponent"):
        fit("progress", everybody)
    with pytest.raises(NotToldError, match=r"do not tell rank of rank-cost"):
        fit("rank-cost", everybody)
    alike = [replace(pilot, probability=np.full(10, 0.3)) for pilot in everybody]
    with pytest.raises(NotToldError):
        cross_validate(alike)
    with pytest.raises(NotToldError, match=r"^0 plans tell nothing"):
        cross_validate([])
