"""Every method through the whole simulation: bytes, server time, and files that agree."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from fslora.lora import is_core
from fslora.methods import METHODS
from sim.errors import InputError
from sim.replayed import ranks_kept
from sim.run import run
from sim.scenario import Scenario
from sim.system import build_system
from sim.verify import verify

Simulate = Callable[[Scenario], Any]
Tiny = Callable[..., Scenario]

FOUR_BYTES = 4
#: Of the built-in model.
WIDTH = 128
NAMES = {"ceil": math.ceil, "log2": math.log2}


def per_layer(told: str, layers: dict[str, tuple[int, int]], **known: int) -> int:
    """Sum of a table's expression over the layers."""
    return sum(
        eval(told, NAMES, {**known, "d_in": d_in, "d_out": d_out})
        for d_in, d_out in layers.values()
    )


def downlink_of(name: str) -> str:
    """A downlink that the method goes with."""
    return "unicast" if METHODS[name].unicast else "broadcast"


@pytest.mark.parametrize(
    ("name", "downlink"),
    [(n, "unicast") for n in METHODS]
    + [(n, "broadcast") for n in METHODS if not METHODS[n].unicast],
)
def test_bytes_are_those_of_the_table(
    name: str, downlink: str, tiny: Tiny, simulate: Simulate
) -> None:
    method = METHODS[name]
    caps = [16, 16, 4, 8] if method.accepts(16, 4) else [16]
    scenario = tiny(
        {
            "method": name,
            "fleet.rank_caps": caps,
            "radio.downlink": downlink,
            "policy": {"name": "uniform", "probability": 0.7, "max_noise": None},
            "schedule": {"server_flops": 1e9},
            "stop": {"rounds": 4},
        }
    )
    done = simulate(scenario)
    assert verify(done.files).findings == ()
    workload = build_system(scenario).workload
    layers = dict(workload.sent.layers)
    # Every job is two steps of two examples of 32 tokens; labels are 4 bytes each.
    token = FOUR_BYTES * eval(method.per_token, {}, {"d": WIDTH})
    step_down = 2 * 2 * 32 * token
    step_up = step_down + 2 * 2 * 32 * FOUR_BYTES * (token > 0)
    dense = sum(d_in * d_out for d_in, d_out in layers.values())
    timeline = done.files.table("timeline.csv")
    rank = done.files.table("plan.csv")["rank"].to_numpy()
    merged, has = 0, np.zeros(4)
    heard = 0
    for number, row in done.files.table("rounds.csv").set_index("round").iloc[1:].iterrows():
        of_round = timeline[timeline["round"] == number]
        device = of_round.query("phase == 'uplink'")["device"].to_numpy().astype(int)
        up = 0
        for k in rank[device].tolist():
            up += FOUR_BYTES * per_layer(method.up, layers, k=k, r=16, round=number)
            up += per_layer(method.up_bits, layers, k=k, r=16) // 8 + step_up
        assert row["bytes_up"] == up
        if downlink == "broadcast":
            down = per_layer(method.down, layers, r=16, round=number) + min(merged - heard, dense)
            heard = merged
        else:
            down = 0
            for n in device.tolist():
                held = method.held_ranks(16, int(rank[n]))
                known = {"r": held, "k": int(rank[n]), "round": number}
                down += per_layer(method.down, layers, **known) + min(merged - has[n], dense)
                has[n] = merged
        assert row["bytes_down"] == FOUR_BYTES * down + step_down * len(device)
        merged += per_layer(method.merged, layers, K=int(rank[device].sum()))
        served = of_round.query("phase == 'aggregate'")
        flops = method.server_flops(workload.layout, 16, rank[device].tolist())
        lasts = float((served["end_s"] - served["start_s"]).iloc[0])
        assert lasts == pytest.approx(0.1 + flops / 1e9, rel=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_timing_only_has_the_times_of_training(
    name: str, tiny: Tiny, simulate: Simulate, tmp_path: Any
) -> None:
    choice = {"method": name, "radio.downlink": downlink_of(name)}
    trained = simulate(tiny(choice))
    run(tiny({**choice, "training.timing_only": True}), tmp_path / "timing")
    for file in ("timeline.csv", "spectrum.csv"):
        assert (tmp_path / "timing" / file).read_bytes() == (
            trained.files.folder / file
        ).read_bytes()


@pytest.mark.parametrize("name", [n for n in METHODS if not METHODS[n].additive])
@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"training.server": "adam"}, "training.server"),
        (
            {
                "schedule": "fedbuff",
                "radio": {"downlink": "unicast", "allocation": "work-conserving"},
                "policy": {"name": "full"},
            },
            "schedule.name",
        ),
    ],
)
def test_what_is_no_sum_of_changes_is_refused(
    name: str, changes: dict[str, Any], key: str, tiny: Tiny
) -> None:
    with pytest.raises(ValueError, match=key):
        tiny({"method": name, **changes})


@pytest.mark.parametrize("name", [n for n in METHODS if METHODS[n].unicast])
def test_what_differs_from_device_to_device_is_not_broadcast(name: str, tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"radio\.downlink = 'broadcast'.*set unicast"):
        tiny({"method": name})


@pytest.mark.parametrize("name", [n for n in METHODS if METHODS[n].merges_into_base])
def test_four_bits_hold_no_merged_weights(name: str, tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=r"model\.dtype"):
        tiny({"method": name, "model.dtype": "nf4"})


@pytest.mark.parametrize(
    "changes", [{"keep": 0.25}, {"value_bits": 4}, {"keep": 0.1, "value_bits": 8}]
)
def test_compressed_uploads(changes: dict[str, Any], tiny: Tiny, simulate: Simulate) -> None:
    """Per rank and factor ceil(keep d) values with their places, and a scale if rounded."""
    scenario = tiny({"method": {"name": "fslora", **changes}, "policy": {"name": "full"}})
    done = simulate(scenario)
    assert verify(done.files).findings == ()
    keep, bits = changes.get("keep", 1.0), changes.get("value_bits")

    def vector(d: int) -> int:
        places = int(np.ceil(np.log2(d))) if keep < 1 else 0
        return int(np.ceil(keep * d)) * ((bits or 32) + places) + (32 if bits else 0)

    layers = build_system(scenario).workload.layout.layers.values()
    wanted = 16 * sum(vector(d_in) + vector(d_out) for d_in, d_out in layers)
    first = done.files.table("rounds.csv").iloc[1]
    assert first["bytes_up"] == 4 * (wanted // 8)


def test_rows_of_cores_are_compressed(tiny: Tiny, simulate: Simulate) -> None:
    """Per layer 16 rows of 16 numbers, of which 4 go with their places and a scale."""
    choice = {"name": "ce-lora", "keep": 0.25, "value_bits": 8, "similarity": "none"}
    done = simulate(
        tiny({"method": choice, "policy": {"name": "full"}, "radio.downlink": "unicast"})
    )
    assert verify(done.files).findings == ()
    assert done.learner.method.similarity == "none"
    layers = len(done.learner.model.layout.layers)
    first = done.files.table("rounds.csv").iloc[1]
    assert first["bytes_up"] == 4 * layers * 16 * (4 * (8 + 4) + 32) // 8
    assert first["bytes_down"] == 4 * layers * 16 * 16 * FOUR_BYTES


def test_cores_that_never_arrived_are_not_missed(tiny: Tiny, simulate: Simulate) -> None:
    losses = {"probability": 1 - 1e-9, "retries": 0}
    done = simulate(
        tiny(
            {
                "method": "ce-lora",
                "radio": {"downlink": "unicast", "allocation": "work-conserving"},
                "failures": {"losses": losses},
            }
        )
    )
    assert not done.learner.personal
    assert verify(done.files).findings == ()


@pytest.mark.parametrize("rows", [15, None])
def test_bytes_of_cores_are_those_on_disk(rows: int | None, tiny: Tiny, simulate: Simulate) -> None:
    done = simulate(tiny({"method": "ce-lora", "radio.downlink": "unicast", "stop.rounds": 1}))
    file = done.files.folder / "adapter" / "beyond_adapter.safetensors"
    tensors = load_file(file)
    assert {name.split(".")[2] for name in tensors} == {"a", "b", "head"}
    if rows is None:
        file.unlink()
    else:
        save_file({n: v[:rows].copy() if is_core(n) else v for n, v in tensors.items()}, file)
    assert verify(done.files).findings != ()


def test_soft_names_what_it_sends_beside_compressed_numbers(tiny: Tiny, simulate: Simulate) -> None:
    """Four bits name one of sixteen ranks in each layer, whatever becomes of the numbers."""
    choice = {"name": "soft", "keep": 0.25, "value_bits": 8}
    done = simulate(
        tiny({"method": choice, "policy": {"name": "full"}, "fleet.rank_caps": [3, 3, 3, 3]})
    )
    assert verify(done.files).findings == ()
    layers = build_system(done.files.scenario).workload.layout.layers.values()

    def vector(d: int) -> int:
        return math.ceil(d / 4) * (8 + math.ceil(math.log2(d))) + 32

    bits = 3 * sum(vector(d_in) + vector(d_out) + 4 for d_in, d_out in layers)
    assert done.files.table("rounds.csv").iloc[1]["bytes_up"] == 4 * (bits // 8)


def test_what_trains_all_ranks_takes_as_long_and_as_much_memory_at_each(tiny: Tiny) -> None:
    """Rank k is what is sent; FedIT's devices do the same but for the penalty."""
    caps = {"fleet.rank_caps": [16, 16, 4, 8], "radio.downlink": "unicast"}
    soft = build_system(tiny({"method": "soft", **caps})).workload
    free = build_system(tiny({"method": {"name": "soft", "orthogonality": 0}, **caps})).workload
    plain = build_system(tiny({"method": "fedit"})).workload
    np.testing.assert_array_equal(free.expected_flops(3), plain.expected_flops(16))
    grams = 6 * 16**2 * plain.layout.numbers_per_rank
    np.testing.assert_allclose(
        soft.expected_flops(3), plain.expected_flops(16) + plain.steps * grams, rtol=1e-12
    )
    device, key = np.array([0, 2]), np.array([5, 6])
    np.testing.assert_allclose(
        soft.flops_of(device, key, 3),
        plain.flops_of(device, key, 16) + plain.steps[device] * grams,
        rtol=1e-12,
    )
    for k in (1, 16):
        assert soft.cost.training_bytes(k) == plain.cost.training_bytes(16)
        assert soft.cost.download_bits(k) == plain.cost.download_bits(16)
        names = 4 * k * len(plain.layout.layers)
        assert soft.cost.upload_bits(k) == plain.cost.upload_bits(k) + names
    enough = plain.cost.frozen_bytes + plain.cost.training_bytes(16)
    assert soft.cost.rank_cap([enough - 1, enough, 1e15], 16).tolist() == [0, 16, 16]


def test_rank_below_that_of_the_method_is_refused(tiny: Tiny) -> None:
    with pytest.raises(InputError, match=r"fleet\.rank_caps"):
        build_system(tiny({"method": "fedex-lora", "fleet.rank_caps": [4]}))


def test_ranks_that_devices_have_pruned_are_not_sent_again(tiny: Tiny, simulate: Simulate) -> None:
    """A rank falls from one update of a device to the next, and its bytes and times with it."""
    method = {"name": "hetlora", "pruning_weight": 1.0, "pruning_factor": 0.5}
    scenario = tiny(
        {
            "method": method,
            "policy": {"name": "full"},
            # Steps that get shorter let the penalty shrink what it has made small.
            "training.decay": "linear",
            "stop.rounds": 6,
        }
    )
    whole = simulate(scenario).files
    assert verify(whole).findings == ()
    updates = whole.table("updates.csv")
    fell = 0
    for _, rows in updates.groupby("device"):
        kept = rows["rank_kept"].to_numpy()[:-1]
        np.testing.assert_array_equal(rows["rank"].to_numpy()[1:], kept)
        fell += int((kept < rows["rank"].to_numpy()[:-1]).sum())
    assert fell > 0
    sent = whole.table("rounds.csv")["bytes_up"].to_numpy()[1:]
    layers = build_system(scenario).workload.layout.layers
    per_rank = sum(d_in + d_out for d_in, d_out in layers.values())
    ranks = updates.groupby("round")["rank"].sum().to_numpy()
    np.testing.assert_array_equal(sent, FOUR_BYTES * per_rank * ranks)


def test_pruning_goes_by_training(tiny: Tiny) -> None:
    changes = {
        "method": {"name": "hetlora", "pruning_weight": 0.1},
        "training.timing_only": True,
        "stop.target": None,
    }
    with pytest.raises(ValueError, match=r"method\.pruning_weight: devices prune by what they"):
        tiny(changes)


def test_ranks_kept_are_those_that_pruning_leaves(tiny: Tiny) -> None:
    rows = [(0, 16, math.nan), (1, 16, 8.0), (1, 16, 16.0), (1, 16, 9.0), (1, 1, 1.0), (1, 4, None)]
    updates = pd.DataFrame(rows, columns=["round", "rank", "rank_kept"]).assign(device=2)
    method = {"name": "hetlora", "pruning_weight": 1.0, "pruning_factor": 0.5}
    found = ranks_kept(build_system(tiny({"method": method})), updates)
    assert [each.line for each in found] == [5, 7]
    found = ranks_kept(build_system(tiny({"method": "hetlora"})), updates)
    assert [each.line for each in found] == [3, 4, 5, 6]
