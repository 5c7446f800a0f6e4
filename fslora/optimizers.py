"""Local optimizers on the numbers of many devices, one device per row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fslora.local import LocalTraining

#: The denominator of the clip carries it, as in `torch.nn.utils.clip_grad_norm_`.
_CLIP_EPSILON = 1e-6


class RowOptimizer:
    """SGD with momentum, or AdamW, on rows of a matrix that are unrelated to each other.

    Every operation acts on the whole matrix, in place and without a decision on the host, so that
    a step can be captured as a CUDA graph.

    Parameters
    ----------
    local
        Optimizer, momentum, clipping, decay and proximal term.
    numbers
        (M, P) trained in place.
    start
        (M, P) where training began, which the proximal term pulls towards.
    learning_rate
        (M, 1) step size.
    step_factor
        (M, 1) factor on the gradient of the first `factors` columns; see
        `LocalTraining.step_factor`.
    factors
        Columns that hold LoRA factors; the others hold heads, which no sketch scales.
    state
        Matrices of the shape of `numbers`, as many as `LocalTraining.state_copies` says beyond
        the numbers and their gradient.
    count
        () steps taken.
    trained
        (P,) or (M, P) one for every number that is trained, zero for the others, which keep their
        bits; None if all are.
    """

    def __init__(
        self,
        local: LocalTraining,
        numbers: Tensor,
        start: Tensor,
        learning_rate: Tensor,
        step_factor: Tensor,
        factors: int,
        state: Sequence[Tensor],
        count: Tensor,
        trained: Tensor | None = None,
    ) -> None:
        self._local = local
        self._numbers, self._start = numbers, start
        self._learning_rate, self._step_factor = learning_rate, step_factor
        self._factors = factors
        self._state, self._count, self._trained = state, count, trained

    def reset(self) -> None:
        """Forget everything, before the first step of a round."""
        self._count.zero_()
        for each in self._state:
            each.zero_()

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Move the first n rows by a step along `gradient`, (n, P), which is used up."""
        rows = slice(len(gradient))
        numbers = self._numbers[rows]
        gradient[:, : self._factors].mul_(self._step_factor[rows])
        trained = self._trained
        if trained is not None:
            trained = trained[rows] if trained.ndim == 2 else trained
            gradient.mul_(trained)
        if self._local.proximal:
            gradient.add_(numbers - self._start[rows], alpha=self._local.proximal)
        if self._local.clip_norm is not None:
            norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
            gradient.mul_((self._local.clip_norm / (norm + _CLIP_EPSILON)).clamp(max=1.0))
        if self._local.optimizer == "adamw":
            self._adamw(rows, gradient, trained)
            return
        if self._state:
            gradient = self._state[0][rows].mul_(self._local.momentum).add_(gradient)
        numbers.addcmul_(gradient, self._learning_rate[rows], value=-1)

    def _adamw(self, rows: slice, gradient: Tensor, trained: Tensor | None) -> None:
        """Algorithm 2 of arXiv 1711.05101."""
        beta_1, beta_2 = self._local.betas
        numbers, rate = self._numbers[rows], self._learning_rate[rows]
        # All rows of a step have taken the same number of steps: rows leave, none joins.
        self._count.add_(1)
        first = self._state[0][rows].lerp_(gradient, 1 - beta_1)
        second = self._state[1][rows].mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
        first_bias = (1 - beta_1**self._count).to(numbers.dtype)
        second_bias = (1 - beta_2**self._count).to(numbers.dtype)
        spread = (second / second_bias).sqrt_().add_(self._local.epsilon)
        if self._local.weight_decay:
            decay = rate * self._local.weight_decay
            numbers.mul_(1 - (decay if trained is None else decay * trained))
        numbers.sub_(rate * (first / first_bias) / spread)
