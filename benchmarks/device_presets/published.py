"""Published times of fine-tuning steps, and how well one step of a device predicts its others.

A measured step belongs to a family: one device under one software. The speed of a family is
fitted on one of its steps, operations over seconds, and every other step is predicted from it by
its operations alone, with no overhead. The errors are printed by
``python -m benchmarks.device_presets`` and discussed in ``docs/devices.md``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

_ATTENTION = ("q", "k", "v", "o")
_MLP = ("gate", "up", "down")


@dataclass(frozen=True, slots=True)
class Counts:
    """What the operations of a training step depend on.

    Parameters
    ----------
    weights : float
        P, the weights of the linear maps, the output head among them, the embedding table not.
    first_weights : float
        P_first, those of them whose input carries no gradient.
    adapter_weights : float
        A, the sum of r (d_in + d_out) over the adapters.
    forward_attention, backward_attention : float
        Heads times head width, summed over the layers that attention passes forward and backward.
    """

    weights: float
    first_weights: float = 0.0
    adapter_weights: float = 0.0
    forward_attention: float = 0.0
    backward_attention: float = 0.0


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder with a gated feed-forward network, as its configuration file describes it.

    Parameters
    ----------
    name : str
        Name of the published model.
    layers : int
        Blocks.
    width : int
        Width of the residual stream.
    query_width, key_width : int
        Heads times head width of the queries, and of the keys (as of the values).
    hidden_width : int
        Width of the feed-forward network.
    vocabulary : int
        Tokens that the output head scores.
    """

    name: str
    layers: int
    width: int
    query_width: int
    key_width: int
    hidden_width: int
    vocabulary: int

    def shape(self, module: str) -> tuple[int, int]:
        """Return input and output width of a linear map: q, k, v, o, gate, up or down."""
        shapes = {
            "q": (self.width, self.query_width),
            "k": (self.width, self.key_width),
            "v": (self.width, self.key_width),
            "o": (self.query_width, self.width),
            "gate": (self.width, self.hidden_width),
            "up": (self.width, self.hidden_width),
            "down": (self.hidden_width, self.width),
        }
        return shapes[module]

    def block_weights(self, modules: Iterable[str] = _ATTENTION + _MLP) -> int:
        """Return the weights of some linear maps of one block, by default of all."""
        return sum(rows * columns for rows, columns in map(self.shape, modules))

    def counts(
        self, rank: int = 0, modules: Iterable[str] = (), top_layers: int | None = None
    ) -> Counts:
        """Return the counts of training adapters, or of training every weight.

        Parameters
        ----------
        rank : int
            Rank of the adapters; 0 trains every weight, the embedding included.
        modules : iterable of str
            Linear maps that have adapters, at least one of q, k, v.
        top_layers : int, optional
            Blocks from the top that have adapters; all by default.

        Returns
        -------
        Counts
            Counts of the model. Queries, keys and values of the lowest adapted block have an input
            that carries no gradient, and so has everything below.

        Raises
        ------
        ValueError
            If there are adapters, but none on queries, keys or values.
        """
        modules = tuple(modules)
        if rank and not set(modules) & set("qkv"):
            raise ValueError(f"modules must hold one of q, k, v, got {modules}")
        adapted = self.layers if top_layers is None else top_layers
        below = (self.layers - adapted) * self.block_weights() + self.block_weights("qkv")
        return Counts(
            weights=self.layers * self.block_weights() + self.width * self.vocabulary,
            first_weights=below if rank else 0,
            adapter_weights=adapted * rank * sum(sum(self.shape(module)) for module in modules),
            forward_attention=self.layers * self.query_width,
            backward_attention=adapted * self.query_width,
        )


def flops_per_token(
    counts: Counts, length: int, *, full: bool = False, checkpointing: bool = False
) -> float:
    """Return the floating-point operations of training on one token.

    Forward 2 P, gradient of the activations 2 (P - P_first), gradient of the weights 2 P if they
    are trained; an adapter 6 A; attention 4 s per forward and 8 s per backward unit of heads times
    head width, without regard to the causal mask. Checkpointing passes forward once more, through
    all of the model: 2 P, 2 A, 4 s; P_first is then counted like the rest (own derivation).

    Parameters
    ----------
    counts : Counts
        Counts of the model and its adapters.
    length : int
        Sequence length s; 0 leaves attention out.
    full : bool
        Whether the weights themselves are trained.
    checkpointing : bool
        Whether activations are computed again in the backward pass.

    Returns
    -------
    float
        Operations.
    """
    again = int(checkpointing)
    weights = (4 + 2 * full + 2 * again) * counts.weights
    saved = 0 if checkpointing else 2 * counts.first_weights
    adapters = (6 + 2 * again) * counts.adapter_weights
    forward = 4 * (1 + again) * counts.forward_attention
    return weights - saved + adapters + length * (forward + 8 * counts.backward_attention)


@dataclass(frozen=True, slots=True)
class PublishedStep:
    """One measured step of fine-tuning.

    Parameters
    ----------
    device : str
        What was measured.
    software : str
        What it ran; with the device it names the family.
    model : str
        Model that was trained.
    method : str
        How, in words.
    flops_per_token : float
        Operations of one token.
    batch, length : int
        Sequences of one step and tokens of each.
    seconds : float
        Measured time of the step on one device.
    source : str
        Where the time is published.
    fitted : bool
        Whether the family's speed is fitted on this step.
    """

    device: str
    software: str
    model: str
    method: str
    flops_per_token: float
    batch: int
    length: int
    seconds: float
    source: str
    fitted: bool = False

    @property
    def flops(self) -> float:
        """Operations of the step."""
        return self.flops_per_token * self.batch * self.length


@dataclass(frozen=True, slots=True)
class Prediction:
    """A published step beside what its family's fitted step makes of it.

    Parameters
    ----------
    step : PublishedStep
        The measured step.
    speed_flops : float
        Speed of the family in FLOP/s.
    predicted_s : float
        Operations over speed, in seconds.
    """

    step: PublishedStep
    speed_flops: float
    predicted_s: float

    @property
    def relative_error(self) -> float:
        """Predicted over measured time, less one; zero for the fitted step."""
        return self.predicted_s / self.step.seconds - 1


def predict(steps: Iterable[PublishedStep]) -> tuple[Prediction, ...]:
    """Predict every step from the fitted one of its family.

    Parameters
    ----------
    steps : iterable of PublishedStep
        Measured steps, those of a family next to each other.

    Returns
    -------
    tuple of Prediction
        One per step, in their order.

    Raises
    ------
    ValueError
        If a family has no fitted step or several.
    """
    predictions: list[Prediction] = []
    for family, group in groupby(steps, key=lambda step: (step.device, step.software)):
        members = list(group)
        fitted = [step for step in members if step.fitted]
        if len(fitted) != 1:
            raise ValueError(f"{' / '.join(family)} must have one fitted step, got {len(fitted)}")
        speed = fitted[0].flops / fitted[0].seconds
        predictions += [Prediction(step, speed, step.flops / speed) for step in members]
    return tuple(predictions)
