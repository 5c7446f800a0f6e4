"""Round models from pilots: constants, how sure they are, and which model predicts best.

A pilot is a run under a known plan with the rounds that it took. Constants are fitted to relative
errors, since what counts for a plan is the ratio of its rounds to another's; a factor per group of
pilots takes up what makes one seed harder than another. Source: own derivation.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optimizer.rounds import ROUND_MODELS, FloatArray, RoundModel, Tables
from optimizer.rounds.regression import (
    STARTS,
    NotToldError,
    Pilot,
    Regression,
    Stack,
    constants_of,
)
from wireless.streams import uniform

__all__ = [
    "FITTED",
    "Fit",
    "NotToldError",
    "Pilot",
    "Score",
    "cross_validate",
    "fit",
    "without_model",
]

#: Models that have constants to fit, the simplest first.
FITTED = tuple(
    sorted(
        (name for name in ROUND_MODELS if name != Tables.name),
        key=lambda name: len(constants_of(name)),
    )
)

#: Median errors that differ by less are a tie.
_TIE = 0.005


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A round model fitted to pilots.

    Parameters
    ----------
    model : RoundModel
        With constants for a group of middling difficulty.
    factor : mapping of int to float
        What the rounds of each group are multiplied by; their geometric mean is one.
    residual : ndarray, shape (P,)
        Logarithm of measured over predicted rounds, pilot by pilot.
    interval : mapping of str to (float, float)
        Where each constant lies in nine of ten fits to plans and groups drawn again with
        replacement; empty if not asked for.
    """

    model: RoundModel
    factor: Mapping[int, float]
    residual: FloatArray
    interval: Mapping[str, tuple[float, float]]

    @property
    def constants(self) -> dict[str, float]:
        """Constants of the model by name."""
        return {name: float(getattr(self.model, name)) for name in constants_of(self.model.name)}

    @property
    def rms(self) -> float:
        """Root mean square of the residuals."""
        return float(np.sqrt(np.mean(self.residual**2)))

    def predict(self, pilots: Sequence[Pilot]) -> FloatArray:
        """Rounds of pilots (P,), by the model and the factors of their groups.

        A group that the fit has not seen counts as one of middling difficulty.
        """
        factor = np.array([self.factor.get(pilot.group, 1.0) for pilot in pilots])
        return np.asarray(factor * Stack.of(pilots).rounds(self.model))

    def errors(self, pilots: Sequence[Pilot]) -> dict[str, float]:
        """Relative error of each plan: predicted over measured rounds, less one.

        Of a plan's pilots both are geometric means.
        """
        ratio = np.log(self.predict(pilots) / [pilot.rounds for pilot in pilots])
        return {
            plan: float(np.expm1(ratio[[pilot.plan == plan for pilot in pilots]].mean()))
            for plan in dict.fromkeys(pilot.plan for pilot in pilots)
        }


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """How well a model predicts plans that it was not fitted to.

    Parameters
    ----------
    model : str
        Name of the model.
    error : mapping of str to float
        Relative error of each plan, by a fit to all the others.
    predicted : ndarray, shape (P,)
        Rounds of each pilot, by a fit to the pilots of all other plans.
    """

    model: str
    error: Mapping[str, float]
    predicted: FloatArray

    @property
    def median(self) -> float:
        """Median of the errors' sizes."""
        return float(np.median(np.abs(list(self.error.values()))))

    @property
    def worst(self) -> float:
        """Largest of the errors' sizes."""
        return float(np.max(np.abs(list(self.error.values()))))

    @property
    def rms(self) -> float:
        """Root mean square of the errors."""
        return float(np.sqrt(np.mean(np.square(list(self.error.values())))))


def fit(name: str, pilots: Sequence[Pilot], resamples: int = 0, seed: int = 0) -> Fit:
    """Fit a round model by least squares on the relative errors, from several starts.

    Parameters
    ----------
    name : str
        Name of the model, one of `FITTED`.
    pilots : sequence of Pilot
        P pilots of fleets of one size.
    resamples : int
        Bootstrap samples for the intervals of the constants.
    seed : int
        Root seed of these.

    Returns
    -------
    Fit

    Raises
    ------
    NotToldError
        If the pilots do not tell a constant.
    ValueError
        If the model is unknown or the fleets differ in size.
    """
    if name not in FITTED:
        raise ValueError(f"name is {name!r}: give one of {', '.join(FITTED)}")
    problem = Regression.of(name, pilots)
    unknown = problem.unknown
    if len(problem.stack) <= len(unknown) + problem.groups:
        raise NotToldError(
            f"{len(problem.stack)} pilots in {problem.groups} groups do not tell the "
            f"{len(unknown) + 1} constants of {name}: give more plans"
        )
    starts = itertools.product(STARTS, repeat=len(unknown))
    found = min((problem.solve(start) for start in starts), key=lambda each: each[0])[1]
    problem.check(found)
    model, factor = problem.model(found)
    return Fit(
        model,
        dict(zip(problem.label.tolist(), factor.tolist(), strict=True)),
        problem.residual(found),
        _bootstrap(name, pilots, found, resamples, seed),
    )


def cross_validate(pilots: Sequence[Pilot], names: Sequence[str] = FITTED) -> tuple[Score, ...]:
    """Predict each plan by fits to all the others.

    Parameters
    ----------
    pilots : sequence of Pilot
        P pilots of fleets of one size.
    names : sequence of str
        Models to compare.

    Returns
    -------
    tuple of Score
        The best first: by the median error, and among models that are within half a percentage
        point of the best by the number of constants. Models whose constants the pilots do not tell
        are left out.

    Raises
    ------
    NotToldError
        If there are fewer than two plans, or no model is left.
    """
    plans = list(dict.fromkeys(pilot.plan for pilot in pilots))
    if len(plans) < 2:
        raise NotToldError(f"{len(plans)} plans tell nothing of others: give more")
    scores, untold = [], NotToldError("names is empty: give a model")
    for name in names:
        error: dict[str, float] = {}
        predicted = np.empty(len(pilots))
        try:
            for plan in plans:
                here = np.array([pilot.plan == plan for pilot in pilots])
                held_out = [pilot for pilot in pilots if pilot.plan == plan]
                found = fit(name, [pilot for pilot in pilots if pilot.plan != plan])
                error |= found.errors(held_out)
                predicted[here] = found.predict(held_out)
        except NotToldError as reason:
            untold = reason
        else:
            scores.append(Score(name, error, predicted))
    if not scores:
        raise untold
    least = min(score.median for score in scores)

    def order(score: Score) -> tuple[bool, float, float]:
        beaten = score.median > least + _TIE
        return beaten, score.median if beaten else len(constants_of(score.model)), score.median

    return tuple(sorted(scores, key=order))


def without_model(pilots: Sequence[Pilot]) -> Score:
    """Predict each plan by what all the others took on the same seeds: what a model has to beat.

    Parameters
    ----------
    pilots : sequence of Pilot
        P pilots of two plans or more.

    Returns
    -------
    Score
        Of the model "none".
    """
    plan = np.array([pilot.plan for pilot in pilots])
    group = np.array([pilot.group for pilot in pilots])
    log_rounds = np.log([pilot.rounds for pilot in pilots])
    predicted, error = np.empty(len(pilots)), {}
    for name in dict.fromkeys(plan.tolist()):
        here = plan == name
        level = {one: log_rounds[~here & (group == one)].mean() for one in set(group[~here])}
        middling = np.mean(list(level.values()))
        predicted[here] = [level.get(one, middling) for one in group[here]]
        error[name] = float(np.expm1(np.mean((predicted - log_rounds)[here])))
    return Score("none", error, np.exp(predicted))


def _bootstrap(
    name: str, pilots: Sequence[Pilot], start: FloatArray, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Central nine tenths of each constant over plans and groups drawn again with replacement.

    Both are drawn, since plans of one group share its luck (pigeonhole bootstrap, Owen 2007).
    """
    plans, groups = (
        np.unique([getattr(pilot, of) for pilot in pilots], return_inverse=True)[1]
        for of in ("plan", "group")
    )
    drawn = []
    for number in range(resamples):
        times = [
            np.bincount(
                (uniform(seed, f"round-model-{of}", number, np.arange(count)) * count).astype(int),
                minlength=count,
            )
            for of, count in (("plan", plans.max() + 1), ("group", groups.max() + 1))
        ]
        pick = np.repeat(np.arange(len(pilots)), times[0][plans] * times[1][groups])
        try:
            problem = Regression.of(name, [pilots[int(each)] for each in pick])
        except ValueError:  # nothing that would tell a constant was drawn
            continue
        model, _ = problem.model(problem.solve(start)[1])
        drawn.append([getattr(model, constant) for constant in constants_of(name)])
    if not drawn:
        return {}
    low, high = np.quantile(drawn, (0.05, 0.95), axis=0)
    return {
        constant: (float(low[number]), float(high[number]))
        for number, constant in enumerate(constants_of(name))
    }
