"""Other ways to train a cohort, each as someone following its description would write it.

All take the same index sets, batches and number of steps from the learner. None shares code with
stacked training: modules, losses and updates are ordinary PyTorch.

The factors are masters in the adapter's own number format and are cast, step by step, to that of
the base, so the LoRA products of every variant run in the same precision.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel

from fslora.batches import Batches
from fslora.local import LocalTraining
from fslora.lora import Adapter
from fslora.methods import Job, Slice, Update
from fslora.tasks import Task
from fslora.trainer import Learner

#: Marks positions whose next token is not predicted.
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class Work:
    """What a cohort trains on and from, as the learner draws it.

    Parameters
    ----------
    slices
        Per device its index sets and gain.
    batches
        Data of the M devices for H steps.
    adapter
        Global state.
    scale
        Layer scale s.
    local, task
        Step size and loss.
    width
        Tokens that every sample is padded to; None for no more than the longest of its batch.
    """

    slices: list[Slice]
    batches: Batches
    adapter: Adapter
    scale: float
    local: LocalTraining
    task: Task
    width: int | None = None

    @classmethod
    def of(cls, learner: Learner, jobs: Sequence[Job], width: int | None = None) -> Work:
        """Draw the jobs' index sets and data.

        Raises
        ------
        ValueError
            If the learner trains heads, which the rivals do not.
        """
        if learner.adapter.head:
            raise ValueError("the rivals train no heads; use find_layout(..., heads=False)")
        return cls(
            learner.slices(jobs),
            learner.batches(jobs),
            learner.adapter,
            learner.lora.scale,
            learner.local,
            learner.dataset.task,
            width,
        )


@dataclass(frozen=True, slots=True)
class Delta:
    """What one device's training changed.

    Parameters
    ----------
    a, b
        Per layer (k, d_in) and (d_out, k).
    loss
        Mean loss over the steps, a scalar tensor.
    """

    a: dict[str, Tensor]
    b: dict[str, Tensor]
    loss: Tensor

    @classmethod
    def of(cls, update: Update) -> Delta:
        """What the learner returned for a device, multiplied as the server does."""
        gain = update.factor_gain
        a = {name: gain * value for name, value in update.delta_a.items()}
        b = {name: gain * value for name, value in update.delta_b.items()}
        return cls(a, b, torch.tensor(update.loss))

    def distance(self, other: Delta) -> float:
        """Norm of the difference to `other`, relative to the norm of `other`, over all layers."""
        square = reference = 0.0
        for mine, theirs in ((self.a, other.a), (self.b, other.b)):
            for name, value in theirs.items():
                square += float((mine[name] - value).double().square().sum())
                reference += float(value.double().square().sum())
        return math.sqrt(square / reference)


@dataclass(frozen=True, slots=True)
class StepRule:
    """How far a device steps, and by what its change is multiplied."""

    learning_rate: float
    delta_scale: float


def step_rule(piece: Slice, local: LocalTraining) -> StepRule:
    """Step of a device with sketch `piece`: shorter by its gain, its change longer, or neither."""
    factor = local.step_factor(piece.gain)
    return StepRule(learning_rate=local.learning_rate * factor, delta_scale=1.0 / factor)


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's data on the training device.

    Parameters
    ----------
    tokens
        (n, L).
    mask
        (n, L), 1 for tokens that are not padding; None where there is no padding.
    target
        (n,) classes, or (n, L) the token after each position, -100 where none is predicted.
    """

    tokens: Tensor
    mask: Tensor | None
    target: Tensor


def steps_of(work: Work, devices: slice, place: torch.device) -> list[Batch]:
    """The H batches of some devices, their samples one device after the other."""
    batches = work.batches
    return [
        _batch(
            batches.tokens[devices, step].flatten(0, 1),
            batches.length[devices, step].flatten(),
            batches.prompt[devices, step].flatten(),
            batches.label[devices, step].flatten(),
            work,
            place,
        )
        for step in range(batches.tokens.shape[1])
    ]


def _batch(
    tokens: Tensor, length: Tensor, prompt: Tensor, label: Tensor, work: Work, place: torch.device
) -> Batch:
    width = work.width or int(length.max())
    # Padding is token 0; the mask keeps it from having any effect.
    tokens = nn.functional.pad(tokens, (0, max(0, width - tokens.shape[1])))[:, :width]
    position = torch.arange(width, device=tokens.device)
    end = length.unsqueeze(1)
    if work.task == "classification":
        target = label
    else:
        following = position + 1
        predicted = (following >= prompt.unsqueeze(1)) & (following < end)
        target = tokens.roll(-1, dims=1).masked_fill(~predicted, _IGNORED)
    mask = (position < end).long().to(place) if bool((length < width).any()) else None
    return Batch(tokens.to(place), mask, target.to(place))


def mean_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean nats per class or predicted token, in single precision or double."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return cross_entropy(
        logits.flatten(0, -2), target.flatten(), ignore_index=_IGNORED, reduction="mean"
    )


class LoraLinear(nn.Module):
    """A frozen linear layer plus s B A x.

    The narrow product is scaled rather than, as in PEFT, the wide one, which costs more.
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.scale = 1.0
        self.a = nn.Parameter(base.weight.new_empty(0))
        self.b = nn.Parameter(base.weight.new_empty(0))

    def factors(self) -> tuple[Tensor, Tensor]:
        """A and B as the forward pass uses them."""
        return self.a, self.b

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d_in) to (..., d_out)."""
        a, b = self.factors()
        inner = linear(x, a.to(x.dtype)) * self.scale
        out: Tensor = self.base(x)
        return out + linear(inner, b.to(x.dtype))


class MaskedLoraLinear(LoraLinear):
    """The same with full-rank factors of which a mask (r,) keeps some ranks.

    The mask is part of the forward pass, so autograd masks the gradients too.
    """

    mask: Tensor

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.register_buffer("mask", base.weight.new_empty(0))

    def factors(self) -> tuple[Tensor, Tensor]:
        """Rows of A and columns of B outside the sketch are zero."""
        return self.a * self.mask.unsqueeze(1), self.b * self.mask


class GraphLoraLinear(LoraLinear):
    """The same with the scale in a tensor, so that a captured graph can be given another.

    It is multiplied into A before that is cast: as a tensor of the base's format it would be
    rounded.
    """

    gain: Tensor

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.register_buffer("gain", base.weight.new_empty(0))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., d_in) to (..., d_out)."""
        inner = linear(x, (self.a * self.gain).to(x.dtype))
        out: Tensor = self.base(x)
        return out + linear(inner, self.b.to(x.dtype))


def local_sgd(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    steps: Sequence[Batch],
    learning_rate: float,
    local: LocalTraining,
) -> Tensor:
    """Ordinary SGD on `parameters`; returns the mean loss."""
    optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=local.momentum)
    losses = []
    for step in steps:
        loss = mean_loss(model(input_ids=step.tokens, attention_mask=step.mask).logits, step.target)
        optimizer.zero_grad()
        loss.backward()
        if local.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, local.clip_norm)
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean()


class Rival(ABC):
    """A way to train a cohort on a base model of its own, which it wraps in place."""

    wrapper: type[LoraLinear] = LoraLinear

    def __init__(self, base: PreTrainedModel, layers: Sequence[str]) -> None:
        self.model = base
        for name in layers:
            layer = base.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            base.set_submodule(name, self.wrapper(layer))
        self.layers = tuple(layers)

    @abstractmethod
    def run(self, work: Work) -> list[Delta]:
        """Train the cohort."""

    def adapted(self, model: nn.Module | None = None) -> Iterator[tuple[str, LoraLinear]]:
        """Name and module of every adapted layer."""
        for name in self.layers:
            module = (model or self.model).get_submodule(name)
            assert isinstance(module, LoraLinear)
            yield name, module


class CopyAndMask(Rival):
    """(a) Every device trains a copy of the whole model, full-rank factors under a mask."""

    wrapper = MaskedLoraLinear

    def run(self, work: Work) -> list[Delta]:
        """Train the cohort, one copy after another."""
        for name, module in self.adapted():
            module.a = nn.Parameter(work.adapter.a[name].clone())
            module.b = nn.Parameter(work.adapter.b[name].clone())
        return [self._train(work, device) for device in range(len(work.slices))]

    def _train(self, work: Work, device: int) -> Delta:
        piece = work.slices[device]
        rule = step_rule(piece, work.local)
        model = copy.deepcopy(self.model)
        adapted = dict(self.adapted(model))
        kept = torch.from_numpy(piece.indices).to(self.model.device)
        for layer, module in enumerate(adapted.values()):
            assert isinstance(module, MaskedLoraLinear)
            module.mask = module.a.new_zeros(len(module.a)).index_fill_(0, kept[layer], 1.0)
            module.scale = work.scale * piece.gain
        parameters = [factor for module in adapted.values() for factor in (module.a, module.b)]
        steps = steps_of(work, slice(device, device + 1), self.model.device)
        loss = local_sgd(model, parameters, steps, rule.learning_rate, work.local)
        a, b = {}, {}
        for ranks, (name, module) in zip(kept, adapted.items(), strict=True):
            a[name] = (module.a.detach() - work.adapter.a[name])[ranks] * rule.delta_scale
            b[name] = (module.b.detach() - work.adapter.b[name])[:, ranks] * rule.delta_scale
        return Delta(a, b, loss)


class OneByOne(Rival):
    """(b) One device after another: k-rank submatrices swapped in and out of one base model."""

    def run(self, work: Work) -> list[Delta]:
        """Train the cohort, one adapter after another."""
        return [self._train(work, device) for device in range(len(work.slices))]

    def _train(self, work: Work, device: int) -> Delta:
        piece = work.slices[device]
        rule = step_rule(piece, work.local)
        kept = torch.from_numpy(piece.indices).to(self.model.device)
        start_a, start_b, parameters = {}, {}, []
        for ranks, (name, module) in zip(kept, self.adapted(), strict=True):
            start_a[name] = work.adapter.a[name][ranks]
            start_b[name] = work.adapter.b[name][:, ranks]
            module.a = nn.Parameter(start_a[name].clone())
            module.b = nn.Parameter(start_b[name].clone())
            module.scale = work.scale * piece.gain
            parameters += [module.a, module.b]
        steps = steps_of(work, slice(device, device + 1), self.model.device)
        loss = local_sgd(self.model, parameters, steps, rule.learning_rate, work.local)
        a = {n: (m.a.detach() - start_a[n]) * rule.delta_scale for n, m in self.adapted()}
        b = {n: (m.b.detach() - start_b[n]) * rule.delta_scale for n, m in self.adapted()}
        return Delta(a, b, loss)


class OneByOneGraph(Rival):
    """(b-graph) The same with a device's step captured once as a CUDA graph and replayed.

    Factors are padded to the cohort's widest and samples to its longest, so one graph serves all
    devices. It is captured in the first run and serves later ones of the same shape. Plain SGD
    only.
    """

    wrapper = GraphLoraLinear

    def __init__(self, base: PreTrainedModel, layers: Sequence[str]) -> None:
        super().__init__(base, layers)
        self._replay: Callable[[], object] | None = None

    @torch.no_grad()
    def run(self, work: Work) -> list[Delta]:
        """Train the cohort, one replay after another.

        Raises
        ------
        ValueError
            If momentum or clipping is asked for.
        """
        if work.local.momentum or work.local.clip_norm is not None:
            raise ValueError("the captured step is plain SGD, without momentum or clipping")
        # Ranks beyond a device's own point at an appended rank of zeros, which stays zero.
        padded_a = {n: nn.functional.pad(v, (0, 0, 0, 1)) for n, v in work.adapter.a.items()}
        padded_b = {n: nn.functional.pad(v, (0, 1)) for n, v in work.adapter.b.items()}
        kept = self._padded_ranks(work)
        whole = replace(work, width=work.width or int(work.batches.length.max()))
        batches = steps_of(whole, slice(None), self.model.device)
        if self._replay is None:
            self._allocate(whole, batches, kept.shape[-1])
            self._replay = self.record()
        deltas = []
        for device, piece in enumerate(work.slices):
            rule = step_rule(piece, work.local)
            for ranks, (name, module) in zip(kept[device], self.adapted(), strict=True):
                torch.index_select(padded_a[name], 0, ranks, out=module.a)
                torch.index_select(padded_b[name], 1, ranks, out=module.b)
            start = [parameter.detach().clone() for parameter in self._parameters]
            self._gain.fill_(work.scale * piece.gain)
            self._learning_rate.fill_(rule.learning_rate)
            self._loss.zero_()
            rows = slice(device * len(self._tokens), (device + 1) * len(self._tokens))
            for batch in batches:
                self._tokens.copy_(batch.tokens[rows])
                self._target.copy_(batch.target[rows])
                if self._mask is not None:
                    self._mask.copy_(batch.mask[rows] if batch.mask is not None else self._ones)
                self._replay()
            change = list(torch._foreach_sub(self._parameters, start))
            torch._foreach_mul_(change, rule.delta_scale)
            k = piece.indices.shape[1]
            a = {n: value[:k] for n, value in zip(self.layers, change[::2], strict=True)}
            b = {n: value[:, :k] for n, value in zip(self.layers, change[1::2], strict=True)}
            deltas.append(Delta(a, b, self._loss / len(batches)))
        return deltas

    def _padded_ranks(self, work: Work) -> Tensor:
        """Ranks of every device and layer, (M, layers, k_max), filled up with r."""
        width = max(piece.indices.shape[1] for piece in work.slices)
        rank = len(next(iter(work.adapter.a.values())))
        kept = torch.full((len(work.slices), len(self.layers), width), rank)
        for row, piece in zip(kept, work.slices, strict=True):
            row[:, : piece.indices.shape[1]] = torch.from_numpy(piece.indices)
        return kept.to(self.model.device)

    def _allocate(self, work: Work, batches: Sequence[Batch], width: int) -> None:
        """Make what the graph reads and writes; what is in it is overwritten before a replay."""
        samples = work.batches.tokens.shape[2]
        self._tokens = batches[0].tokens[:samples].clone()
        self._target = batches[0].target[:samples].clone()
        self._ones = torch.ones_like(self._tokens)
        padded = any(batch.mask is not None for batch in batches)
        self._mask = self._ones.clone() if padded else None
        self._parameters: list[Tensor] = []
        number = next(iter(work.adapter.a.values()))
        self._gain, self._learning_rate = number.new_ones(()), number.new_zeros(())
        self._loss = number.new_zeros(())
        for name, module in self.adapted():
            assert isinstance(module, GraphLoraLinear)
            module.a = nn.Parameter(work.adapter.a[name][:width].clone())
            module.b = nn.Parameter(work.adapter.b[name][:, :width].clone())
            module.gain = self._gain
            self._parameters += [module.a, module.b]

    def record(self) -> Callable[[], object]:
        """Capture the step; the function returned replays it."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.step()
        return self._graph.replay

    def step(self) -> None:
        """One local step on the static tensors."""
        with torch.enable_grad():
            logits = self.model(input_ids=self._tokens, attention_mask=self._mask).logits
            loss = mean_loss(logits, self._target)
            gradients = list(torch.autograd.grad(loss, self._parameters))
        with torch.no_grad():
            torch._foreach_mul_(gradients, self._learning_rate)
            torch._foreach_sub_(self._parameters, gradients)
            self._loss.add_(loss.detach())


class OneAdapter(Rival):
    """(d) The floor: one ordinary adapter of the cohort's widest rank on all devices' samples."""

    def run(self, work: Work) -> list[Delta]:
        """Train the one adapter; the change is its own, not the devices'."""
        width = max(piece.indices.shape[1] for piece in work.slices)
        parameters = []
        for name, module in self.adapted():
            module.a = nn.Parameter(work.adapter.a[name][:width].clone())
            module.b = nn.Parameter(work.adapter.b[name][:, :width].clone())
            module.scale = work.scale
            parameters += [module.a, module.b]
        steps = steps_of(work, slice(None), self.model.device)
        loss = local_sgd(self.model, parameters, steps, work.local.learning_rate, work.local)
        a = {n: m.a.detach() - work.adapter.a[n][:width] for n, m in self.adapted()}
        b = {n: m.b.detach() - work.adapter.b[n][:, :width] for n, m in self.adapted()}
        return [Delta(a, b, loss)]


#: How the variants other than stacked training are called in results.
RIVALS: dict[str, Callable[[PreTrainedModel, Sequence[str]], Rival]] = {
    "a": CopyAndMask,
    "b": OneByOne,
    "b-graph": OneByOneGraph,
    "d": OneAdapter,
}
