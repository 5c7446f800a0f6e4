"""SplitLoRA through the whole simulation: bytes, times and energies of every local step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fslora.methods import Job
from fslora.order import job_rows
from optimizer.policies.parts import members_s
from optimizer.problem import in_turn
from sim.errors import InputError
from sim.rundir import open_run
from sim.scenario import Scenario
from sim.system import build_system
from sim.verify import verify
from wireless import streams
from wireless.spectrum import equal_finish

Simulate = Callable[[Scenario], Any]
Tiny = Callable[..., Scenario]

WIDTH, RANK, FOUR_BYTES = 128, 16, 4
#: Numbers that one rank of a block of the built-in model holds.
BLOCK_NUMBERS = 2560
SPLIT: dict[str, Any] = {
    "method.name": "splitlora",
    "method.blocks": 2,
    "radio.downlink": "unicast",
}
FULL: dict[str, Any] = {**SPLIT, "policy": {"name": "full", "max_noise": None}}


def tokens_of(done: Any, device: int, dispatch: int) -> int:
    """Tokens of the examples that a job trains on, from the data themselves."""
    learner = done.learner
    length = learner.dataset.train.length
    key = int(streams.keys(1, "job", np.array([device]), np.array([dispatch]))[0])
    rows = job_rows(learner.shards, length, learner.local, Job(device, RANK, key))
    return int(length[rows].sum())


def test_every_step_sends_the_tokens_it_trains_on(tiny: Tiny, simulate: Simulate) -> None:
    """Examples of unlike lengths: 4 bytes for each of 128 numbers and a label, and the factors."""
    done = simulate(tiny({**FULL, "data.length": 64}))
    assert verify(done.files).findings == ()
    timeline = done.files.table("timeline.csv")
    assert len(set(done.learner.dataset.train.length.tolist())) > 1
    factors = FOUR_BYTES * RANK * 2 * BLOCK_NUMBERS
    counted = []
    for number in (1, 2, 3):
        for device in range(4):
            tokens = tokens_of(done, device, number - 1)
            row = timeline[(timeline["round"] == number) & (timeline["device"] == device)]
            bytes_of = row.set_index("phase")["bytes"]
            assert bytes_of["downlink"] == factors + FOUR_BYTES * WIDTH * tokens
            assert bytes_of["uplink"] == factors + FOUR_BYTES * (WIDTH + 1) * tokens
            counted.append(tokens)
    assert len(set(counted)) > 1


def test_tampered_bytes_of_a_step_are_seen(tiny: Tiny, simulate: Simulate) -> None:
    """Device 0's activations with one block more on the server are not what was trained."""
    done = simulate(tiny(FULL))
    file = done.files.folder / "scenario.yaml"
    scenario = yaml.safe_load(file.read_text())
    scenario["method"]["blocks"] = 1
    file.write_text(yaml.safe_dump(scenario))
    assert verify(open_run(done.files.folder)).findings


def test_times_and_energies_by_hand(tiny: Tiny, simulate: Simulate) -> None:
    """Two devices: server and gradients in turn, the device's arithmetic, then a band for all."""
    scenario = tiny({**FULL, "fleet.devices": 2, "schedule.server_flops": 1e9})
    done, system = simulate(scenario), build_system(scenario)
    # The whole step and the device's part of it, two steps of two examples of 32 tokens.
    whole = build_system(tiny({"method": "fedit", "fleet.devices": 2})).workload
    fleet, state = system.fleet, system.fleet.channel.start
    device, both = np.arange(2), np.zeros(2, dtype=np.int64)
    part_flops = system.workload.flops_of(device, both, RANK)
    server_s = (whole.flops_of(device, both, RANK) - part_flops) / 1e9
    adapter, tokens = 32 * RANK * 2 * BLOCK_NUMBERS, 2 * 2 * 32
    down_s = (adapter + 32 * WIDTH * tokens) / state.downlink.rate(
        scenario.radio.downlink_bandwidth_hz
    )
    compute_s = part_flops / fleet.compute_flops + 2 * fleet.step_overhead_s
    ready_s = np.cumsum(server_s + down_s) + compute_s
    up_bits = np.full(2, adapter + 32.0 * (WIDTH + 1) * tokens)
    division = equal_finish(ready_s, up_bits, state.uplink, scenario.radio.bandwidth_hz)
    first = done.files.table("timeline.csv").query("round == 1")
    ends = first.query("phase == 'uplink'").sort_values("device")
    np.testing.assert_allclose(ends["start_s"], ready_s, rtol=1e-12)
    np.testing.assert_allclose(ends["end_s"], division.finish_s, rtol=1e-9)
    np.testing.assert_allclose(ends["bandwidth_hz"], division.bandwidth_hz, rtol=1e-9)
    # Neither waiting for the server nor for gradients takes a device's energy.
    computing = first.query("phase == 'compute'").sort_values("device")
    np.testing.assert_allclose(computing["energy_j"], fleet.compute_power_w * compute_s, rtol=1e-9)
    received = first.query("phase == 'downlink'")
    assert (received["energy_j"] == 0).all()
    # The ends meet: each rate carries its bits in what is left.
    left_s = division.finish_s - ready_s
    carried = state.uplink.rate(division.bandwidth_hz) * left_s
    np.testing.assert_allclose(carried, up_bits, rtol=1e-9)


def test_plan_expects_what_happens(tiny: Tiny, simulate: Simulate) -> None:
    """With everybody in every round, and examples of one length, nothing is left to chance.

    But for the arithmetic of the merge, which no plan reckons with.
    """
    scenario = tiny({**FULL, "schedule.server_flops": 1e9})
    rounds = simulate(scenario).files.table("rounds.csv").iloc[1:]
    merging_s = build_system(scenario).server_s(np.full(4, RANK))
    np.testing.assert_allclose(rounds["cohort_s"], rounds["expected_s"] + merging_s, rtol=1e-9)
    np.testing.assert_allclose(rounds["duration_s"], rounds["cohort_s"], rtol=1e-9)


@dataclass
class Steps:
    """One device's local steps: seconds of each thing, and how far it is."""

    stages: list[tuple[str, float]]
    end_s: float = math.inf


def played(devices: list[Steps]) -> list[float]:
    """When each ends if server and downlink serve the first who waits, and break off for it."""
    now = 0.0
    while any(each.stages for each in devices):
        served: dict[str, int] = {}
        for n, each in enumerate(devices):
            if each.stages and each.stages[0][0] in ("server", "down"):
                served.setdefault(each.stages[0][0], n)
        moving = [
            n
            for n, each in enumerate(devices)
            if each.stages and served.get(each.stages[0][0], n) == n
        ]
        span = min(devices[n].stages[0][1] for n in moving)
        now += span
        for n in moving:
            what, left = devices[n].stages.pop(0)
            if left > span:
                devices[n].stages.insert(0, (what, left - span))
            elif not devices[n].stages:
                devices[n].end_s = now
    return [each.end_s for each in devices]


seconds = st.floats(0.01, 5.0)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.tuples(seconds, seconds, seconds, seconds, seconds), min_size=1, max_size=4),
    st.integers(1, 4),
)
def test_step_by_step_ends_no_later_than_all_at_once(
    parts: list[tuple[float, float, float, float, float]], steps: int
) -> None:
    """What is played out in one piece bounds the true course from above; for one device exactly.

    Every step: forward, send, server, gradient, backward. Each device sends in its own band.
    """
    names = ("ahead", "up", "server", "down", "back")
    devices = [Steps([*zip(names, part, strict=True)] * steps) for part in parts]
    found = played(devices)
    ahead, up, server, down, back = steps * np.array(parts).T
    lumped = in_turn(server + down, np.zeros(len(parts))) + (ahead + back) + up
    assert (np.array(found) <= lumped * (1 + 1e-9)).all()
    assert found[0] == pytest.approx(lumped[0], rel=1e-9)


def test_devices_of_unlike_data_are_planned_for_one_by_one(tiny: Tiny) -> None:
    """A pass over unlike numbers of examples takes unlike traffic; cohorts see their own."""
    changes = {"training.epochs": 1, "data.partition": "quantity", "data.alpha": 0.5}
    system = build_system(tiny({**FULL, **changes}))
    problem, rank = system.problem, np.full(4, RANK)
    bits = problem.upload_bits(rank)
    count = system.workload.steps * system.workload.local.batch_of(system.workload.samples)
    wanted = 32 * RANK * 2 * BLOCK_NUMBERS + 32 * (WIDTH + 1) * 32 * count
    np.testing.assert_allclose(bits, wanted, rtol=1e-12)
    assert len(set(bits.tolist())) > 1
    for members in ([1, 3], [2], [0, 2, 3]):
        device = np.array(members)
        present = np.isin(np.arange(4), device)
        ready_s = problem.ready_s(rank, present)[device]
        end_s = equal_finish(
            ready_s, bits[device], problem.link.take(device), problem.bandwidth_hz
        ).finish_s
        found = members_s(problem, device, rank[device])
        assert found == pytest.approx(problem.overhead_s + end_s, rel=1e-9)


@pytest.mark.parametrize(
    "policy",
    ["joint", "uniform", "statistical", "luo", "mean-field", "tsfa", "fedcs", "shi", "oort"],
)
def test_every_policy_plans_for_unlike_traffic(policy: str, tiny: Tiny, simulate: Simulate) -> None:
    choice: dict[str, Any] = {"name": policy, "max_noise": None}
    if policy == "uniform":
        choice["probability"] = 0.5
    changes = {"training.epochs": 1, "data.partition": "quantity", "data.alpha": 0.5}
    done = simulate(tiny({**SPLIT, **changes, "policy": choice, "stop.rounds": 1}))
    assert verify(done.files).findings == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"radio.downlink": "broadcast"}, ("radio.downlink = 'broadcast'", "unicast")),
        (
            {"radio.allocation": "equal-split"},
            ("radio.allocation = 'equal-split'", "choose equal-finish"),
        ),
        (
            {"radio.allocation": "work-conserving"},
            ("radio.allocation = 'work-conserving'", "choose equal-finish"),
        ),
        ({"radio.fading": {"name": "block", "block_s": 1.0}}, ("radio.fading = 'block'", "choose")),
        ({"fleet.mobility": "linear"}, ("fleet.mobility = 'linear'", "leave it out")),
        ({"radio.bandwidth_trace": "band.csv"}, ("radio.bandwidth_trace = 'band.csv'", "leave")),
        ({"fleet.compute_trace": "speed.csv"}, ("fleet.compute_trace = 'speed.csv'", "leave")),
        (
            {"failures.losses": {"probability": 0.1}},
            ("failures.losses.probability = 0.1", "leave failures.losses out"),
        ),
        ({"method.number_format": "bfloat16"}, ("method.number_format = bfloat16", "leave it out")),
        ({"method.keep": 0.5}, ("method.keep = 0.5", "leave it out")),
        ({"method.value_bits": 8}, ("method.value_bits = 8", "leave it out")),
        ({"method.blocks": 0}, ("blocks", "greater than or equal to 1")),
    ],
)
def test_refusals(changes: dict[str, Any], words: tuple[str, ...], tiny: Tiny) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the words tell which
        tiny({**SPLIT, **changes})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method.blocks": 4}, r"method\.blocks = 4: the model has 4 blocks.*give 1 to 3"),
        ({"lora.targets": r".*layers\.3.*q_proj"}, r"method\.blocks = 2: no adapted layer"),
        ({"fleet.rank_caps": [4]}, r"fleet\.rank_caps"),
    ],
)
def test_refusals_of_the_model(changes: dict[str, Any], message: str, tiny: Tiny) -> None:
    with pytest.raises(InputError, match=message):
        build_system(tiny({**SPLIT, **changes}))


def test_devices_that_cannot_hold_the_whole_model_hold_a_part(tiny: Tiny) -> None:
    whole = build_system(tiny({"method": "fedit"})).workload.cost
    part = build_system(tiny(SPLIT)).workload.cost
    enough = part.frozen_bytes + part.training_bytes(RANK)
    assert enough < whole.frozen_bytes + whole.training_bytes(RANK)
    phone = {"name": "small", "flops": 1e9, "memory_bytes": float(enough), "compute_power_w": 1.0}
    kind = {"fleet.preset": phone, "fleet.memory_sigma": 0.0}
    assert (build_system(tiny({**SPLIT, **kind})).problem.rank_cap == RANK).all()
    with pytest.raises(InputError, match="cannot hold"):
        build_system(tiny({"method": "fedit", **kind}))
