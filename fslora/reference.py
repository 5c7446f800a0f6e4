"""One device at a time, the plain way: what stacked training is tested against.

Ordinary PyTorch: the device's submatrices as parameters, a forward hook per layer, torch's own
optimizers and `clip_grad_norm_`. Slow, and short enough to be seen to be right.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fslora.dropout import Dropout, dropout_keys
from fslora.local import LocalTraining
from fslora.lora import core_of
from fslora.losses import device_losses
from fslora.methods.base import Job, Slice, Update
from fslora.stacked import Stack
from fslora.trainer import Learner


def train_alone(learner: Learner, job: Job) -> Update:
    """Train one device from the learner's present global state and return its update."""
    piece, batches, local = learner.slices([job])[0], learner.batches([job]), learner.local
    step_factor = local.step_factor(piece.gain)
    base, task = learner.model.model, learner.dataset.task
    a, b, scale = {}, {}, {}
    adapter = learner.own_adapter(job.device)
    for layer, name in enumerate(adapter.a):
        ranks = torch.from_numpy(piece.indices[layer])
        scale[name] = learner.lora.scale * torch.from_numpy(piece.rank_gain[layer])
        a[name] = nn.Parameter(adapter.a[name][ranks].clone(), piece.frozen != "a")
        b[name] = nn.Parameter(adapter.b[name][:, ranks].clone(), piece.frozen != "b")
    head = {name: nn.Parameter(value.clone()) for name, value in adapter.head.items()}
    factors = [each for each in (*a.values(), *b.values()) if each.requires_grad]
    parameters = [*factors, *head.values()]
    start = [parameter.detach().clone() for parameter in parameters]
    frozen_ranks = _frozen_ranks(piece, a, b)
    optimizer = _optimizer(local, parameters, learner.learning_rate(job))
    keys = dropout_keys([job.key], local.steps_of(len(learner.shards[job.device])).item())
    dropout: Dropout | None = None

    def dropped(number: int, x: Tensor) -> Tensor:
        if dropout is None:
            return x
        width = x[0].numel() // x.shape[-1]
        return x * dropout.mask(number, len(x), width, x.shape[-1]).view(x.shape).to(x.dtype)

    def add_lora(number: int, name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            inner = dropped(number, inputs[0]) @ a[name].T
            if core_of(name) in head:
                inner = inner @ head[core_of(name)].T
            return output + (inner * scale[name].to(inner.dtype)) @ b[name].T

        return hook

    def own_head(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor], __: Tensor) -> Tensor:
            return nn.functional.linear(inputs[0], head[f"{name}.weight"], head.get(f"{name}.bias"))

        return hook

    hooks = [
        base.get_submodule(name).register_forward_hook(add_lora(number, name))
        for number, name in enumerate(a)
    ]
    hooks += [
        base.get_submodule(name).register_forward_hook(own_head(name))
        for name in learner.model.layout.heads
    ]
    losses = []
    for step in range(batches.tokens.shape[1]):
        if learner.lora.dropout:
            dropout = Dropout(learner.lora.dropout, keys[:, step])
        tokens = batches.tokens[0, step].to(base.device)
        length, prompt, label = (
            each[0, step] for each in (batches.length, batches.prompt, batches.label)
        )
        logits = learner.model.logits(tokens, length)
        loss = device_losses(logits, tokens, length, prompt, label, 1, task)[0]
        losses.append(loss.item())
        optimizer.zero_grad()
        penalty = learner.method.penalty(_stack_of_one(a, b, scale))
        (loss if penalty is None else loss + penalty).backward()
        for factor in factors:
            assert factor.grad is not None
            factor.grad.mul_(step_factor)
        for factor, _, still in frozen_ranks:
            assert factor.grad is not None
            factor.grad[still] = 0.0
        if local.proximal:
            for parameter, begin in zip(parameters, start, strict=True):
                (local.proximal / 2 * (parameter - begin).square().sum()).backward()
        if local.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, local.clip_norm)
        optimizer.step()
        for factor, kept, still in frozen_ranks:
            factor.data[still] = kept
    for hook in hooks:
        hook.remove()
    begun = dict(zip(map(id, parameters), start, strict=True))

    def changes(named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        return {name: p.detach() - begun.get(id(p), p.detach()) for name, p in named.items()}

    update = Update(
        job.device,
        piece,
        changes(a),
        changes(b),
        changes(head),
        sum(losses) / len(losses),
        1.0 / step_factor,
    )
    return learner.method.sent(update, job.rank, adapter)


def _stack_of_one(
    a: dict[str, nn.Parameter], b: dict[str, nn.Parameter], scale: dict[str, Tensor]
) -> Stack:
    """The factors as penalties take them."""
    rows, columns = ({name: value.unsqueeze(0) for name, value in part.items()} for part in (a, b))
    return Stack(rows, columns, {}, torch.stack(list(scale.values())).unsqueeze(0))


def _frozen_ranks(
    piece: Slice, a: dict[str, nn.Parameter], b: dict[str, nn.Parameter]
) -> list[tuple[nn.Parameter, Tensor, Any]]:
    """Factors, what of them is not trained though it is held, and where that is."""
    if piece.trained is None:
        return []
    found: list[tuple[nn.Parameter, Tensor, Any]] = []
    for name, trained in zip(a, piece.trained, strict=True):
        still = torch.from_numpy(~trained)
        for factor, where in ((a[name], (still,)), (b[name], (slice(None), still))):
            found.append((factor, factor.detach()[where].clone(), where))
    return found


def _optimizer(
    local: LocalTraining, parameters: list[nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    if local.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters,
            lr=learning_rate,
            betas=local.betas,
            eps=local.epsilon,
            weight_decay=local.weight_decay,
        )
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=local.momentum)
