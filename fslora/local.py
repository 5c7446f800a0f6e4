"""What every device does in a round, and how its step size follows from round and sketch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Optimizer = Literal["sgd", "adamw"]
Decay = Literal["constant", "linear", "cosine"]
SketchStep = Literal["scaled", "common"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate over the rounds, as a factor.

    Parameters
    ----------
    decay
        Course after the warm-up: constant, or falling to zero in a line or half a cosine.
    warmup_rounds
        Rounds over which the factor first rises in a line to 1.
    rounds
        Round at which a falling course reaches zero; later rounds keep the factor of the last
        one before it.
    """

    decay: Decay = "constant"
    warmup_rounds: int = 0
    rounds: int = 1

    def factor(self, round_index: int) -> float:
        """Factor on the learning rate in round 1, 2, ...; always positive."""
        if round_index <= self.warmup_rounds:
            return round_index / (self.warmup_rounds + 1)
        span = max(1, self.rounds - self.warmup_rounds)
        # Counted so that the first round after the warm-up has factor 1 and none has 0.
        done = min(round_index - self.warmup_rounds - 1, span - 1) / span
        if self.decay == "linear":
            return 1 - done
        if self.decay == "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        return 1.0


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """Local training of a round: the same rule on every device, on its own data.

    The optimizer starts from zero state each round, since the device holds other ranks each time.

    Parameters
    ----------
    steps
        Local steps H, at least 1.
    batch
        Examples per step; a device that holds fewer takes all it has.
    learning_rate
        Step size at schedule factor 1.
    momentum
        Heavy-ball momentum of SGD, in [0, 1).
    clip_norm
        Largest gradient norm of one device over all it trains, or None for no clipping.
    optimizer
        `sgd`, or `adamw` (arXiv 1711.05101) with `betas`, `epsilon` and decoupled `weight_decay`.
    proximal
        mu of the proximal term mu/2 |X_n - X|^2 that FedProx (arXiv 1812.06127) adds to the loss.
    epochs
        Passes over a device's own data that take the place of `steps`: H_n then follows from its
        number of examples, and devices with more data move further.
    schedule
        Course of the learning rate over the rounds.
    sketch_step
        Step size of a device whose sketch has gain g = r/k. `scaled`: its factors' gradient is
        divided by g and its change multiplied by g at the server. `common`: neither. See
        `step_factor`.
    """

    steps: int
    batch: int
    learning_rate: float
    momentum: float = 0.0
    clip_norm: float | None = None
    optimizer: Optimizer = "sgd"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    proximal: float = 0.0
    epochs: int | None = None
    schedule: Schedule = Schedule()
    sketch_step: SketchStep = "scaled"

    def batch_of(self, samples: ArrayLike) -> NDArray[np.int64]:
        """Examples per step of devices that hold `samples` examples each."""
        return np.minimum(self.batch, np.asarray(samples, dtype=np.int64))

    def steps_of(self, samples: ArrayLike) -> NDArray[np.int64]:
        """Local steps H_n of devices that hold `samples` examples each."""
        held = np.asarray(samples, dtype=np.int64)
        if self.epochs is None:
            return np.full_like(held, self.steps)
        return -(-self.epochs * held // self.batch_of(held))

    def step_factor(self, gain: float) -> float:
        """Factor on the gradient of a sketched device's factors; its inverse is on their change.

        With gain g = r/k every held rank sees a gradient g times that of the full adapter, while
        the product B A answers to a change of a rank g times as strongly: a common step is g times
        too long for the local loss, and unstable from some rank down. Divided by g, each rank the
        device holds walks as it would in the full adapter, and the change times g has the full
        change as its mean over sketches, as S has the identity. An optimizer that is blind to the
        scale of gradients needs the same: under Adam g cancels, and changes that are not
        multiplied by g come out k/r too small (own derivation).
        """
        return 1.0 / gain if self.sketch_step == "scaled" else 1.0

    @property
    def state_copies(self) -> int:
        """Numbers a device holds per trained number: itself, its gradient and optimizer state."""
        if self.optimizer == "adamw":
            return 4
        return 3 if self.momentum else 2
