"""Cost counted on shapes against the closed forms of the field, and against real training."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Self

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from fslora.cost import AdapterCost
from fslora.counting import count_costs
from fslora.local import LocalTraining
from fslora.lora import Adapter, Layout, find_layout
from fslora.losses import device_losses
from fslora.methods import METHODS, Job
from fslora.models import BUILTIN, enable_checkpointing, frozen_bytes, shape_of
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Task
from fslora.trainer import Learner

LENGTH, BATCH, RANK = 64, 3, 16


def cost_of(
    task: Task = "causal-lm",
    targets: tuple[str, ...] = ("all-linear",),
    momentum: float = 0.0,
    dtype: torch.dtype = torch.float32,
    length: int = LENGTH,
    **options: Any,
) -> tuple[AdapterCost, Layout]:
    shape = shape_of(BUILTIN, task, 7, 0, dtype)
    layout = find_layout(shape, targets, heads=task == "classification")
    local = LocalTraining(1, BATCH, 0.1, momentum)
    (cost,) = count_costs(
        shape, layout, METHODS["fslora"], RANK, local, length, task, 32, **options
    )
    return cost, layout


def build(
    kind: str, config: PretrainedConfig, where: str = "meta"
) -> tuple[PreTrainedModel, Layout, Task]:
    """A frozen model with eager attention, and what is trained of it."""
    model_class = {
        "llama": LlamaForCausalLM,
        "qwen2": Qwen2ForCausalLM,
        "gpt2": GPT2LMHeadModel,
        "bert": BertForSequenceClassification,
    }[kind]
    config.use_cache = False
    with torch.device(where):
        model = model_class._from_config(config, attn_implementation="eager")
    model.requires_grad_(False)
    model.eval()
    task: Task = "classification" if kind == "bert" else "causal-lm"
    return model, find_layout(model, "all-linear", heads=task == "classification"), task


def test_flops_of_an_example_of_the_causal_model() -> None:
    cost, layout = cost_of()
    body = sum(d_in * d_out for d_in, d_out in layout.layers.values())
    output = 128 * 256
    # Inputs of the first block's q, k and v carry no gradient.
    first = 3 * 128 * 128
    attention = 12 * 4 * 128
    assert cost.flops_fixed == (0, 4 * (body + output) - 2 * first, attention)
    assert cost.flops_per_rank == (0, 6 * layout.numbers_per_rank - 2 * 3 * 128)
    linear = cost.flops_fixed[1] + 5 * cost.flops_per_rank[1]
    assert cost.example_flops(5, [10, 64]).tolist() == [
        10 * linear + 100 * attention,
        64 * linear + 64**2 * attention,
    ]


def test_flops_of_a_length_do_not_depend_on_the_length_they_are_counted_at() -> None:
    one, _ = cost_of("classification", length=64)
    other, _ = cost_of("classification", length=2)
    assert one.flops_fixed == other.flops_fixed
    assert one.flops_per_rank == other.flops_per_rank


def test_flops_of_a_classifier_count_its_head_where_it_acts() -> None:
    plain, layout = cost_of()
    cost, _ = cost_of("classification")
    # No output layer; this head acts on every position before one is picked, with three products
    # (forward, its own gradient, its input's).
    difference = plain.flops_fixed[1] - cost.flops_fixed[1]
    assert difference == 4 * 128 * 256 - 6 * 128 * 7
    assert layout.head_numbers == 0


BLOCKS, WIDTH, INNER, LABELS = 8, 256, 700, 5
LARGE: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(
        vocab_size=2000,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=BLOCKS,
        num_attention_heads=8,
        num_key_value_heads=8,
    ),
    "qwen2": Qwen2Config(
        vocab_size=2000,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=BLOCKS,
        num_attention_heads=8,
        num_key_value_heads=2,
    ),
    "gpt2": GPT2Config(
        vocab_size=2000,
        n_embd=WIDTH,
        n_layer=BLOCKS,
        n_head=8,
        bos_token_id=None,
        eos_token_id=None,
    ),
    "bert": BertConfig(
        vocab_size=2000,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=8,
        num_labels=LABELS,
        pad_token_id=0,
    ),
}


def behind_the_last_attention(layout: Layout) -> dict[str, tuple[int, int]]:
    """Layers of BERT whose output only the first position is read of."""
    last = f"layer.{BLOCKS - 1}."
    return {
        name: dims
        for name, dims in layout.layers.items()
        if last in name and name.endswith(("output.dense", "intermediate.dense"))
    }


def closed_form(kind: str, layout: Layout, rank: int, length: int, checkpointing: bool) -> float:
    """Arithmetic of one example by the formula of the field.

    Per token two products with each frozen weight (forward, input's gradient), but one where no
    gradient enters (q, k and v of the first block), and three with each factor; attention 12 s per
    block and unit of width. Checkpointing adds a forward pass of the blocks. Once per example what
    acts once: BERT's pooler and its trained head, and what lies behind its last attention.
    """
    behind = behind_the_last_attention(layout)
    once = {name: dims for name, dims in layout.layers.items() if "pooler" in name}
    blocks = {name: dims for name, dims in layout.layers.items() if name not in {*once, *behind}}

    def weights(layers: Iterable[tuple[int, int]]) -> int:
        return sum(d_in * d_out for d_in, d_out in layers)

    def numbers(layers: Iterable[tuple[int, int]]) -> int:
        return sum(d_in + d_out for d_in, d_out in layers)

    first = sum(
        d_in * d_out
        for name, (d_in, d_out) in blocks.items()
        if ".0." in name
        and name.endswith(("q_proj", "k_proj", "v_proj", "c_attn", "query", "key", "value"))
    )
    output = 0 if kind == "bert" else WIDTH * 2000
    again = 2 if checkpointing else 0
    per_token = (
        (4 + again) * weights(blocks.values())
        + 4 * output
        - 2 * first
        + (6 + again) * rank * numbers(blocks.values())
        + (12 + 2 * again) * BLOCKS * length * WIDTH
    )
    head = sum(d_in * d_out for d_in, d_out, _ in layout.heads.values())
    per_example = (
        4 * weights(once.values())
        + 6 * rank * numbers(once.values())
        + (4 + again) * weights(behind.values())
        + (6 + again) * rank * numbers(behind.values())
        + 6 * head
    )
    return length * per_token + per_example


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", LARGE)
def test_flops_follow_the_closed_form(kind: str, checkpointing: bool) -> None:
    shape, layout, task = build(kind, LARGE[kind])
    local = LocalTraining(1, 2, 0.1)
    (cost,) = count_costs(
        shape, layout, METHODS["fslora"], RANK, local, 96, task, 32, checkpointing=checkpointing
    )
    for rank in (1, 16):
        for length in (24, 96, 512):
            formula = closed_form(kind, layout, rank, length, checkpointing)
            assert float(cost.example_flops(rank, length)) == pytest.approx(formula, rel=0.02)


@pytest.mark.parametrize("kind", LARGE)
def test_flops_are_those_of_torch_own_counter(kind: str) -> None:
    # A real step with eager attention, which the counter sees on a CPU.
    length, rank = 24, 8
    shape, layout, task = build(kind, LARGE[kind])
    local = LocalTraining(1, 2, 0.1)
    (cost,) = count_costs(shape, layout, METHODS["fslora"], RANK, local, length, task, 32)
    base, _, _ = build(kind, LARGE[kind], "cpu")
    adapter = Adapter.fresh(base, layout, rank, 0, torch.float32)
    model = StackedModel(base, layout)
    factors = [*adapter.a.values(), *adapter.b.values(), *adapter.head.values()]
    for factor in factors:
        factor.requires_grad_(True)
    tokens, lengths = torch.randint(1, 60, (3, length)), torch.full((3,), length)
    ones = torch.ones(3, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, model.using(Stack.whole(adapter, 1.0)):
        logits = model.logits(tokens, lengths)
        loss = device_losses(logits, tokens, lengths, ones, ones, 1, task)
        torch.autograd.grad(loss.sum(), factors)
    assert counter.get_total_flops() == 3 * float(cost.example_flops(rank, length))


def test_head_on_a_pooled_state_is_used_once_per_example() -> None:
    shape, layout, task = build("bert", LARGE["bert"])
    (cost,) = count_costs(
        shape, layout, METHODS["fslora"], RANK, LocalTraining(1, 2, 0.1), 96, task, 32
    )
    # Pooler and what feeds it, nine squares of the width: forward and its input's gradient; head:
    # its own gradient too.
    assert cost.flops_fixed[0] == 4 * (1 + 9) * WIDTH**2 + 6 * WIDTH * LABELS
    behind = behind_the_last_attention(layout)
    assert sorted(name.split("layer.")[1] for name in behind) == [
        f"{BLOCKS - 1}.attention.output.dense",
        f"{BLOCKS - 1}.intermediate.dense",
        f"{BLOCKS - 1}.output.dense",
    ]
    assert cost.flops_per_rank[0] == 6 * (2 * WIDTH + sum(map(sum, behind.values())))


class LiveBytes(TorchDispatchMode):
    """Most bytes that were alive at once in tensors made within the block."""

    def __init__(self, present: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = {tensor.untyped_storage()._cdata for tensor in present}

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.now -= size


SMALL: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
    ),
    "gpt2": GPT2Config(
        vocab_size=64, n_embd=64, n_layer=6, n_head=4, bos_token_id=None, eos_token_id=None
    ),
    "bert": BertConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_labels=3,
        pad_token_id=0,
    ),
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", SMALL)
def test_saved_bytes_are_what_a_real_step_holds(kind: str, checkpointing: bool) -> None:
    batch, length, rank = 4, 48, 8
    shape, layout, task = build(kind, SMALL[kind])
    local = LocalTraining(1, batch, 0.1)
    (cost,) = count_costs(
        shape, layout, METHODS["fslora"], RANK, local, length, task, 32, checkpointing=checkpointing
    )
    trained = rank * layout.numbers_per_rank + layout.head_numbers
    saved = cost.training_bytes(rank) - 2 * 4 * trained

    base, _, _ = build(kind, SMALL[kind], "cpu")
    adapter = Adapter.fresh(base, layout, rank, 0, torch.float32)
    model = StackedModel(base, layout)
    if checkpointing:
        enable_checkpointing(base)
    factors = [*adapter.a.values(), *adapter.b.values(), *adapter.head.values()]
    for factor in factors:
        factor.requires_grad_(True)
    tokens, lengths = torch.randint(1, 60, (batch, length)), torch.full((batch,), length)
    ones = torch.ones(batch, dtype=torch.int64)
    present = [*base.parameters(), *base.buffers(), *factors, tokens]
    with model.using(Stack.whole(adapter, 1.0)), LiveBytes(present) as live:
        logits = model.logits(tokens, lengths)
        loss = device_losses(logits, tokens, lengths, ones, ones, 1, task)
        torch.autograd.grad(loss.sum(), factors)
    # Besides what is saved, the gradients and what one operation works on are alive: no more than
    # the widest activation.
    widest = 4 * batch * length * max(max(dims) for dims in layout.layers.values())
    assert 0.98 * saved < live.peak - 4 * trained < saved + widest


def test_checkpointing_keeps_little_more_than_one_block() -> None:
    plain, _ = cost_of()
    checkpointed, _ = cost_of(checkpointing=True)
    # Four blocks, of which one is kept, and the inputs of all.
    share = checkpointed.training_bytes_fixed / plain.training_bytes_fixed
    assert 1 / 4 < share < 1 / 2
    assert checkpointed.flops_fixed[1] > 1.3 * plain.flops_fixed[1]


def test_dropout_keeps_masks() -> None:
    plain, layout = cost_of()
    dropped, _ = cost_of(dropout=0.1)
    inputs = sum(d_in for d_in, _ in layout.layers.values())
    more = dropped.training_bytes_fixed - plain.training_bytes_fixed
    # A mask and a masked input per layer take the place of the inputs, which layers share.
    assert BATCH * LENGTH * 4 * inputs < more < 2 * BATCH * LENGTH * 4 * inputs
    assert dropped.flops_fixed == plain.flops_fixed


def test_four_bit_weights_take_half_a_byte_and_their_constants() -> None:
    shape, layout, _ = build("llama", LARGE["llama"])
    shape = shape.to(torch.bfloat16)
    weights = [d_in * d_out for d_in, d_out in layout.layers.values()]
    others = sum(value.numel() for value in shape.parameters()) - sum(weights)
    assert frozen_bytes(shape, nf4=False) == 2 * (others + sum(weights))
    # One byte per 64 weights, four per 256 of those, and two tables per layer.
    quantized = sum(n // 2 + n // 64 + 4 * -(-n // 64 // 256) + 1092 for n in weights)
    assert frozen_bytes(shape, nf4=True) == 2 * others + quantized


@pytest.mark.parametrize("wire", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["causal-lm", "bert"])
def test_upload_is_the_size_of_the_tensors_a_device_sends(
    kind: str, wire: torch.dtype, make_learner: Callable[..., Learner]
) -> None:
    learner = make_learner(kind, wire=wire)
    layout, base = learner.model.layout, learner.model.model
    assert bool(layout.heads) == (kind == "bert")
    with torch.device("meta"):
        shape = type(base)._from_config(base.config, attn_implementation="eager")
    shape.requires_grad_(False)
    task = learner.dataset.task
    (cost,) = count_costs(
        shape, layout, learner.method, learner.lora.rank, learner.local, 12, task, 8 * wire.itemsize
    )
    jobs = [Job(0, 1, 5), Job(1, 4, 6), Job(2, 6, 7)]
    for job, update in zip(jobs, learner.train(jobs), strict=True):
        sent = [*update.delta_a.values(), *update.delta_b.values(), *update.delta_head.values()]
        if wire == torch.bfloat16:
            assert all(torch.equal(value.to(wire).to(value.dtype), value) for value in sent)
        assert cost.upload_bits(job.rank) == 8 * sum(value.to(wire).nbytes for value in sent)


def test_without_attention_targets_no_gradient_enters_the_first_block() -> None:
    cost, layout = cost_of(targets=("up_proj",))
    assert set(layout.layers) == {f"model.layers.{n}.mlp.up_proj" for n in range(4)}
    full, _ = cost_of()
    assert cost.flops_fixed[1] < full.flops_fixed[1]


def test_bits_are_ranks_times_shapes_times_number_size() -> None:
    cost, layout = cost_of()
    assert layout.numbers_per_rank == 4 * (4 * (128 + 128) + 3 * (128 + 384))
    assert cost.upload_bits(5) == 5 * layout.numbers_per_rank * 32
    assert cost.download_bits(RANK) == RANK * layout.numbers_per_rank * 32


def test_heads_are_sent_whole() -> None:
    cost, layout = cost_of("classification")
    assert layout.head_numbers == 7 * 128
    assert cost.upload_bits_fixed == 7 * 128 * 32
    assert cost.download_bits(RANK) == (RANK * layout.numbers_per_rank + 7 * 128) * 32


def test_memory_is_a_line_in_the_rank_and_momentum_adds_one_copy() -> None:
    plain, layout = cost_of()
    heavy, _ = cost_of(momentum=0.9)
    assert plain.frozen_bytes == 885_888 * 4
    grown = heavy.training_bytes_per_rank - plain.training_bytes_per_rank
    assert grown == 4 * layout.numbers_per_rank
    assert heavy.training_bytes_fixed == plain.training_bytes_fixed


def test_activations_of_a_half_precision_base_are_smaller() -> None:
    single, _ = cost_of()
    half, _ = cost_of(dtype=torch.bfloat16)
    # Adapters stay in single precision and keep copies of their inputs, so less than half is won.
    assert half.training_bytes_fixed < single.training_bytes_fixed


def test_rank_cap_is_the_largest_rank_that_fits() -> None:
    cost, _ = cost_of()
    for rank in (1, 7, RANK):
        enough = cost.frozen_bytes + cost.training_bytes(rank)
        assert cost.rank_cap(enough, RANK) == rank
        assert cost.rank_cap(enough - 1, RANK) == rank - 1
    assert cost.rank_cap([0.0, 1e15], RANK).tolist() == [0, RANK]


def test_unknown_target_names_what_there_is() -> None:
    shape = shape_of(BUILTIN, "causal-lm", 0, 0, torch.float32)
    with pytest.raises(ValueError, match=r"'query'.*q_proj"):
        find_layout(shape, ("query",), heads=False)
