"""Cost counted on shapes against the closed forms of the field."""

import numpy as np
import pytest
import torch

from fslora.cost import AdapterCost, count_cost
from fslora.local import LocalTraining
from fslora.lora import Layout, find_layout
from fslora.methods import METHODS
from fslora.models import BUILTIN, shape_of
from fslora.tasks import Task

LENGTH, BATCH, RANK = 64, 3, 16


def cost_of(
    task: Task = "causal-lm",
    targets: tuple[str, ...] = ("all-linear",),
    momentum: float = 0.0,
    rank: int = RANK,
    dtype: torch.dtype = torch.float32,
) -> tuple[AdapterCost, Layout]:
    shape = shape_of(BUILTIN, task, 7, 0, dtype)
    layout = find_layout(shape, targets, heads=task == "classification")
    local = LocalTraining(1, BATCH, 0.1, momentum)
    cost = count_cost(shape, layout, METHODS["fslora"], rank, local, LENGTH, task, 32, 4)
    return cost, layout


def test_flops_per_token_of_the_causal_model() -> None:
    cost, layout = cost_of()
    body = sum(d_in * d_out for d_in, d_out in layout.layers.values())
    output = 128 * 256
    # Inputs of the first block's q, k and v carry no gradient.
    first = 3 * 128 * 128
    attention = 12 * 4 * LENGTH * 128
    assert cost.flops_per_token_fixed == 4 * (body + output) - 2 * first + attention
    assert cost.flops_per_token_per_rank == 6 * layout.numbers_per_rank - 2 * 3 * 128


def test_flops_of_a_classifier_count_its_head_where_it_acts() -> None:
    plain, layout = cost_of()
    cost, _ = cost_of("classification")
    # No output layer; this head acts on every position before one is picked, with three products
    # (forward, its own gradient, its input's).
    difference = plain.flops_per_token_fixed - cost.flops_per_token_fixed
    assert difference == 4 * 128 * 256 - 6 * 128 * 7
    assert layout.head_numbers == 0


def test_without_attention_targets_no_gradient_enters_the_first_block() -> None:
    cost, layout = cost_of(targets=("up_proj",))
    assert set(layout.layers) == {f"model.layers.{n}.mlp.up_proj" for n in range(4)}
    full, _ = cost_of()
    assert cost.flops_per_token_fixed < full.flops_per_token_fixed


def test_bits_are_ranks_times_shapes_times_number_size() -> None:
    cost, layout = cost_of()
    assert layout.numbers_per_rank == 4 * (4 * (128 + 128) + 3 * (128 + 384))
    assert cost.upload_bits(5) == 5 * layout.numbers_per_rank * 32
    assert cost.download_bits == RANK * layout.numbers_per_rank * 32


def test_heads_are_sent_whole() -> None:
    cost, layout = cost_of("classification")
    assert layout.head_numbers == 7 * 128
    assert cost.upload_bits_fixed == 7 * 128 * 32
    assert cost.download_bits == (RANK * layout.numbers_per_rank + 7 * 128) * 32


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


def test_flops_scale_with_tokens() -> None:
    cost, _ = cost_of()
    assert cost.flops([4, 8], [100, 200])[1] > 2 * cost.flops(4, 100)
    np.testing.assert_allclose(cost.flops(4, 300), 3 * cost.flops(4, 100))


def test_unknown_target_names_what_there_is() -> None:
    shape = shape_of(BUILTIN, "causal-lm", 0, 0, torch.float32)
    with pytest.raises(ValueError, match=r"'query'.*q_proj"):
        find_layout(shape, ("query",), heads=False)
