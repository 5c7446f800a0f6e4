"""Pilots as a regression: least squares on the logarithm of their rounds.

The factors of the groups and the scale of the rounds solve a linear problem once the ratios of the
constants are known, so what is searched are these ratios alone. Source: own derivation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from optimizer.rounds import ROUND_MODELS, FloatArray, RoundModel

#: Constants that are exponents; the others are rounds.
_EXPONENTS = frozenset({"rank_exponent"})
#: Starts, and most, of a constant: as an exponent, or by the rounds of its term over those of the
#: base.
STARTS, _MOST = (0.01, 0.3, 3.0), 1e3
#: Constants are told by pilots whose rounds change by more than this per doubling of them, ...
_TELLING = 1e-5
#: ... found by a step of this share.
_STEP = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Pilot:
    """A run under a known plan.

    Parameters
    ----------
    plan : str
        Name of the plan; pilots of the same plan are left out together in a cross-validation.
    group : int
        What the run has in common with others beside the plan, such as its seed.
    weight, variance : ndarray, shape (N,)
        Data weights a_n and variance shares A_n of the run's devices.
    ratio, probability : ndarray, shape (N,)
        Sketching ratios k_n/r, and probabilities of contributing to a round.
    rounds : float
        Rounds to the target, > 0.

    Raises
    ------
    ValueError
        If the rounds are not a positive number, or the arrays are of unlike length.
    """

    plan: str
    group: int
    weight: FloatArray
    variance: FloatArray
    ratio: FloatArray
    probability: FloatArray
    rounds: float

    def __post_init__(self) -> None:
        if not 0 < self.rounds < np.inf:
            raise ValueError(
                f"rounds of pilot {self.plan} are {self.rounds}: leave out runs that did not "
                "reach the target"
            )
        for name in ("variance", "ratio", "probability"):
            shape = np.shape(getattr(self, name))
            if shape != np.shape(self.weight):
                raise ValueError(
                    f"{name} of pilot {self.plan} has shape {shape}: give "
                    f"{np.shape(self.weight)}, as weight has"
                )


class NotToldError(ValueError):
    """The pilots do not tell a constant of the model."""


def constants_of(name: str) -> tuple[str, ...]:
    """Names of a model's constants, the base first."""
    return tuple(item.name for item in fields(ROUND_MODELS[name]))  # type: ignore[arg-type]


def model_of(name: str, base: float, shape: FloatArray) -> RoundModel:
    """A model by its base and its other constants, those in rounds as multiples of the base."""
    constants = {
        constant: float(value if constant in _EXPONENTS else base * value)
        for constant, value in zip(constants_of(name)[1:], shape, strict=True)
    }
    return ROUND_MODELS[name](base=base, **constants)  # type: ignore[call-arg]


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """P pilots as arrays.

    Parameters
    ----------
    weight, variance, ratio, probability : ndarray, shape (P, N)
        As in `Pilot`.
    """

    weight: FloatArray
    variance: FloatArray
    ratio: FloatArray
    probability: FloatArray

    @classmethod
    def of(cls, pilots: Sequence[Pilot]) -> Self:
        """Stack pilots of fleets of one size."""
        if len({np.size(pilot.weight) for pilot in pilots}) != 1:
            raise ValueError("pilots have fleets of unlike size, or there are none: give one size")
        return cls(
            *(
                np.stack([np.asarray(getattr(pilot, name), dtype=np.float64) for pilot in pilots])
                for name in ("weight", "variance", "ratio", "probability")
            )
        )

    def __len__(self) -> int:
        """Number of pilots P."""
        return len(self.weight)

    def rounds(self, model: RoundModel) -> FloatArray:
        """What a model says of each pilot's plan, (P,)."""
        return model.rounds(self.weight, self.variance, self.ratio, self.probability)


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """Least squares over the shape of a model: its constants beside the base.

    Exponents stand for themselves; other constants are measured by the mean rounds of their term
    over those of the base, so that one range of starts suits all fleets and models.

    Parameters
    ----------
    name : str
        Name of the model.
    stack : Stack
        The P pilots.
    log_rounds : ndarray, shape (P,)
        Logarithm of what they took.
    label : ndarray of int, shape (G,)
        Groups, ascending.
    group : ndarray of int, shape (P,)
        Position of each pilot's group among the labels.
    unit : ndarray, shape (S,)
        Value of each constant, at base 1, where its measure is one.
    """

    name: str
    stack: Stack
    log_rounds: FloatArray
    label: NDArray[np.int64]
    group: NDArray[np.intp]
    unit: FloatArray

    @classmethod
    def of(cls, name: str, pilots: Sequence[Pilot]) -> Self:
        """State the problem for a model and its pilots."""
        stack = Stack.of(pilots)
        label, group = np.unique([pilot.group for pilot in pilots], return_inverse=True)
        log_rounds = np.log([pilot.rounds for pilot in pilots])
        unknown = constants_of(name)[1:]
        bare = float(stack.rounds(model_of(name, 1.0, np.zeros(len(unknown)))).mean())
        unit = np.ones(len(unknown))
        for number, constant in enumerate(unknown):
            if constant not in _EXPONENTS:
                one = np.eye(len(unknown))[number]
                term = float(stack.rounds(model_of(name, 1.0, one)).mean()) - bare
                if not term > 0:
                    raise NotToldError(f"the pilots do not tell {constant}: its term is zero")
                unit[number] = bare / term
        return cls(name, stack, log_rounds, label, group, unit)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the S constants that make the shape."""
        return constants_of(self.name)[1:]

    @property
    def groups(self) -> int:
        """Number of groups G."""
        return len(self.label)

    def level(self, value: FloatArray) -> FloatArray:
        """Mean over each group (G,) of a value per pilot (P,)."""
        total = np.bincount(self.group, value, self.groups)
        return np.asarray(total / np.bincount(self.group, minlength=self.groups))

    def excess(self, shape: FloatArray) -> FloatArray:
        """Logarithm of measured rounds over those of base 1, (P,)."""
        model = model_of(self.name, 1.0, shape * self.unit)
        return np.asarray(self.log_rounds - np.log(self.stack.rounds(model)))

    def residual(self, shape: FloatArray) -> FloatArray:
        """Logarithm of measured over predicted rounds, with the best factors, (P,)."""
        excess = self.excess(shape)
        return np.asarray(excess - self.level(excess)[self.group])

    def solve(self, start: Sequence[float] | FloatArray) -> tuple[float, FloatArray]:
        """Least sum of squares from a start, and where it is."""
        inside = np.clip(np.asarray(start, dtype=np.float64), 1e-3, _MOST / 2)
        found = least_squares(self.residual, inside, bounds=(0.0, _MOST), xtol=1e-10, ftol=1e-10)
        # An interior method comes as near to zero as it likes, and means zero.
        return float(found.cost), np.where(found.x < _STEP, 0.0, found.x)

    def check(self, shape: FloatArray) -> None:
        """Refuse constants that could be others without changing what the model says."""
        here = self.residual(shape)
        step = _STEP * np.diag(np.maximum(shape, 0.1))
        slope = np.stack([self.residual(shape + each) - here for each in step]) / _STEP
        direction, size, _ = np.linalg.svd(slope, full_matrices=False)
        if size[-1] < _TELLING:
            constant = self.unknown[int(np.argmax(np.abs(direction[:, -1])))]
            raise NotToldError(
                f"the pilots do not tell {constant} of {self.name}: vary ranks and probabilities "
                "among the plans"
            )

    def model(self, shape: FloatArray) -> tuple[RoundModel, FloatArray]:
        """The model with the best base, and the factors of the groups (G,)."""
        level = self.level(self.excess(shape))
        base = float(np.exp(level.mean()))
        return model_of(self.name, base, shape * self.unit), np.exp(level - level.mean())
