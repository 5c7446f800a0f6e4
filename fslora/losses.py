"""Losses of a stacked batch, per device and per predicted token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fslora.tasks import Task

#: Marks positions whose next token is not predicted.
_IGNORED = -100


def device_losses(
    logits: Tensor,
    tokens: Tensor,
    length: Tensor,
    prompt: Tensor,
    label: Tensor,
    devices: int,
    task: Task,
) -> Tensor:
    """Mean loss of each device in nats per predicted token or per example.

    Parameters
    ----------
    logits
        As `StackedModel.logits` returns them for `devices` equal groups of samples.
    tokens, length, prompt, label
        (samples, L) and (samples,), as in `Batches`. A sample of length 0 is padding of the stack
        and counts nowhere.

    Returns
    -------
    tensor (devices,)
    """
    if task == "classification":
        real = (length > 0).to(logits.device)
        loss = cross_entropy(at_least_single(logits), label.to(logits.device), reduction="none")
        loss = torch.where(real, loss, 0.0)
    else:
        loss, real = token_losses(logits, tokens, length, prompt)
    count = real.view(devices, -1).sum(1).clamp(min=1)
    return loss.view(devices, -1).sum(1) / count.to(loss.dtype)


def token_losses(
    logits: Tensor, tokens: Tensor, length: Tensor, prompt: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of every next-token prediction, at the position that predicts.

    Parameters
    ----------
    logits
        (samples, L, vocabulary).
    tokens, length, prompt
        (samples, L), (samples,), (samples,): the first `prompt` tokens are given, those from
        `length` on are padding; neither is predicted.

    Returns
    -------
    tuple of tensors
        Nats (samples, L), zero where nothing is predicted, and a boolean mask of the same shape.
        The last column predicts nothing.
    """
    target, predicted = next_tokens(tokens, length, prompt)
    target = target.masked_fill(~predicted, _IGNORED)
    loss = cross_entropy(
        at_least_single(logits).flatten(0, 1),
        target.flatten(),
        ignore_index=_IGNORED,
        reduction="none",
    )
    return loss.view(target.shape), predicted


def next_tokens(tokens: Tensor, length: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """The token after each position, (samples, L), and whether it is to be predicted."""
    following = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    given, end = (each.to(tokens.device).unsqueeze(1) for each in (prompt, length))
    return tokens.roll(-1, dims=1), (following >= given) & (following < end)


def at_least_single(logits: Tensor) -> Tensor:
    """Logits in single precision, or in double if they are."""
    return logits if logits.dtype == torch.float64 else logits.float()
