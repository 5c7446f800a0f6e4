"""Local training of a cohort: the same steps for all devices at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fslora.data.dataset import Examples
from fslora.losses import device_losses
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Task


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """What every device does in a round: SGD on its own data.

    Parameters
    ----------
    steps
        Local steps H, at least 1.
    batch
        Examples per step.
    learning_rate
        Step size, the same for every rank.
    momentum
        Heavy-ball momentum, in [0, 1); its buffer starts at zero each round.
    clip_norm
        Largest gradient norm of one device over all it trains, or None for no clipping.
    """

    steps: int
    batch: int
    learning_rate: float
    momentum: float = 0.0
    clip_norm: float | None = None


@dataclass(frozen=True, slots=True)
class Batches:
    """Data of M devices for H steps of b examples.

    Parameters
    ----------
    tokens
        (M, H, b, L).
    length, prompt, label
        (M, H, b): tokens that are not padding, leading tokens that are not predicted, class.
    """

    tokens: Tensor
    length: Tensor
    prompt: Tensor
    label: Tensor

    @classmethod
    def gather(cls, examples: Examples, rows: Sequence[NDArray[np.int64]], steps: int) -> Batches:
        """Pick the examples `rows[m]` (H b of them, in training order) for each device m."""
        chosen = np.stack(rows).reshape(len(rows), steps, -1)
        return cls(
            torch.from_numpy(examples.tokens[chosen]),
            torch.from_numpy(examples.length[chosen]),
            torch.from_numpy(examples.prompt[chosen]),
            torch.from_numpy(examples.label[chosen]),
        )


def data_order(shard: NDArray[np.int64], key: int, count: int) -> NDArray[np.int64]:
    """Examples a device trains on, in order: passes over its shard, each freshly shuffled.

    Parameters
    ----------
    shard
        Example numbers the device holds.
    key
        Seed of this device and dispatch.
    count
        How many to draw.
    """
    rng = np.random.default_rng((key, 1))
    passes = -(-count // len(shard))
    return np.concatenate([rng.permutation(shard) for _ in range(passes)])[:count]


def train_stack(
    model: StackedModel, stack: Stack, batches: Batches, local: LocalTraining, task: Task
) -> NDArray[np.float64]:
    """Run the local steps on every device of the stack, in place.

    The sum of the devices' mean losses is differentiated once per step. No device's loss depends
    on another's factors, so each gets exactly its own gradient.

    Returns
    -------
    array (M,)
        Mean loss over the steps.
    """
    parameters = stack.parameters()
    devices, steps = batches.tokens.shape[:2]
    for parameter in parameters:
        parameter.requires_grad_(True)
    velocity: list[Tensor] = []
    losses = []
    with model.using(stack):
        for step in range(steps):
            length = batches.length[:, step].flatten()
            width = int(length.max())
            tokens = batches.tokens[:, step, :, :width].flatten(0, 1).to(model.model.device)
            label = batches.label[:, step].flatten()
            logits = model.logits(tokens, length)
            loss = device_losses(
                logits,
                tokens,
                length,
                batches.prompt[:, step].flatten(),
                label,
                devices,
                task,
            )
            gradients = list(torch.autograd.grad(loss.sum(), parameters))
            losses.append(loss.detach())
            with torch.no_grad():
                if local.clip_norm is not None:
                    _clip(gradients, local.clip_norm)
                if local.momentum and velocity:
                    torch._foreach_mul_(velocity, local.momentum)
                    torch._foreach_add_(velocity, gradients)
                else:
                    velocity = gradients
                torch._foreach_add_(parameters, velocity, alpha=-local.learning_rate)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return torch.stack(losses).mean(0).double().cpu().numpy()


def _clip(gradients: list[Tensor], largest: float) -> None:
    square = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0)
    factor = (largest / (square.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *(1,) * (gradient.ndim - 1)))
