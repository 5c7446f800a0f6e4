"""One device at a time, the plain way: what stacked training is tested against.

Ordinary PyTorch: the device's submatrices as parameters, a forward hook per layer,
`torch.optim.SGD` and `clip_grad_norm_`. Slow, and short enough to be seen to be right.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fslora.losses import device_losses
from fslora.methods.base import Job, Update
from fslora.trainer import Learner


def train_alone(learner: Learner, job: Job) -> Update:
    """Train one device from the learner's present global state and return its update."""
    piece = learner.slices([job])[0]
    batches = learner.batches([job])
    scale = learner.lora.scale * piece.gain
    a, b = {}, {}
    for layer, name in enumerate(learner.adapter.a):
        ranks = torch.from_numpy(piece.indices[layer])
        a[name] = nn.Parameter(learner.adapter.a[name][ranks].clone())
        b[name] = nn.Parameter(learner.adapter.b[name][:, ranks].clone())
    head = {name: nn.Parameter(value.clone()) for name, value in learner.adapter.head.items()}
    parameters = [*a.values(), *b.values(), *head.values()]
    start = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.SGD(
        parameters, lr=learner.local.learning_rate, momentum=learner.local.momentum
    )

    def add_lora(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            return output + scale * (inputs[0] @ a[name].T @ b[name].T)

        return hook

    def own_head(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor], __: Tensor) -> Tensor:
            return nn.functional.linear(inputs[0], head[f"{name}.weight"], head.get(f"{name}.bias"))

        return hook

    base = learner.model.model
    hooks = [base.get_submodule(name).register_forward_hook(add_lora(name)) for name in a]
    hooks += [
        base.get_submodule(name).register_forward_hook(own_head(name))
        for name in learner.model.layout.heads
    ]
    losses = []
    for step in range(learner.local.steps):
        tokens, length = batches.tokens[0, step].to(base.device), batches.length[0, step]
        logits = learner.model.logits(tokens, length)
        label = batches.label[0, step]
        prompt = batches.prompt[0, step]
        loss = device_losses(logits, tokens, length, prompt, label, 1, learner.dataset.task)[0]
        optimizer.zero_grad()
        loss.backward()
        if learner.local.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, learner.local.clip_norm)
        optimizer.step()
        losses.append(loss.item())
    for hook in hooks:
        hook.remove()
    delta = iter([p.detach() - begin for p, begin in zip(parameters, start, strict=True)])
    return Update(
        job.device,
        piece,
        {name: next(delta) for name in a},
        {name: next(delta) for name in b},
        {name: next(delta) for name in head},
        sum(losses) / len(losses),
    )
