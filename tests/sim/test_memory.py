"""What is noted is answered, to the bit, and a replay that asks for anything else is refused."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.memory import Memory, Told

FLOATS = st.floats(width=64)
#: Device, rank, loss, norm and ranks kept of each update of each round, 0 and up.
ROUNDS = st.lists(
    st.lists(
        st.tuples(
            st.integers(0, 2**31 - 1),
            st.integers(1, 4096),
            FLOATS,
            FLOATS,
            st.none() | st.integers(1, 4096),
        ),
        max_size=4,
    ),
    max_size=6,
)
EVALUATIONS = st.dictionaries(st.integers(0, 5), st.tuples(FLOATS, FLOATS, FLOATS))


def bits(values: object) -> bytes:
    """Floats as they are: NaN equals NaN, zero is not minus zero."""
    return np.array(values, dtype=np.float64).tobytes()


def written(rounds: int = 3) -> Memory:
    """Two updates a round from round 1 on, an evaluation after each, and one before."""
    memory = Memory()
    memory.note_evaluation(0, 5.0, {"accuracy": 0.1})
    for number in range(1, rounds + 1):
        told = [Told(0.5, 1.5), Told(2.0 * number, 3.0, 2)]
        memory.note_updates(number, [number, 7], [4, 8], told)
        memory.note_evaluation(number, 5.0 / number, {"accuracy": 0.1 * number})
    return memory


def resumed(memory: Memory, until: int) -> Memory:
    return Memory.from_arrays(until, memory.arrays())


@settings(deadline=None, derandomize=True)
@given(ROUNDS, EVALUATIONS)
def test_answers_are_what_was_noted(
    rounds: list[list[tuple[int, int, float, float, int | None]]],
    evaluations: dict[int, tuple[float, float, float]],
) -> None:
    memory = Memory()
    for number, updates in enumerate(rounds):
        told = [Told(*each) for _, _, *each in updates]
        memory.note_updates(number, [u[0] for u in updates], [u[1] for u in updates], told)
    for number in sorted(evaluations):
        loss, first, second = evaluations[number]
        memory.note_evaluation(number, loss, {"z": first, "a": second})
    shuffled = {name: memory.arrays()[name] for name in sorted(memory.arrays())}
    again = Memory.from_arrays(6, shuffled)
    for number, updates in enumerate(rounds):
        answer = again.updates(
            number, np.array([u[0] for u in updates]), np.array([u[1] for u in updates])
        )
        assert answer is not None
        assert bits([each[:2] for each in answer]) == bits([each[2:4] for each in updates])
        assert [each.rank_kept for each in answer] == [each[4] for each in updates]
    for number, (loss, first, second) in evaluations.items():
        answered = again.evaluation(number)
        assert answered is not None
        assert list(answered[1]) == ["z", "a"]
        assert bits((answered[0], *answered[1].values())) == bits((loss, first, second))
    assert memory.last == max([-1, len(rounds) - 1, *evaluations])


def test_a_run_from_its_start_trains_everything() -> None:
    memory = written()
    assert memory.until == -1
    for number in range(4):
        assert memory.updates(number, [number, 7], [4, 8]) is None
        assert memory.evaluation(number) is None


def test_rounds_after_the_checkpoint_are_trained_and_noted() -> None:
    memory = resumed(written(2), 2)
    assert memory.updates(3, [3, 7], [4, 8]) is None
    assert memory.evaluation(3) is None
    memory.note_updates(3, [3, 7], [4, 8], [Told(0.5, 1.5), Told(6.0, 3.0, 2)])
    memory.note_evaluation(3, 5.0 / 3, {"accuracy": 0.1 * 3})
    # As if the run had never been interrupted.
    one, other = memory.arrays(), written(3).arrays()
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("device", "rank", "reason"),
    [
        ([2], [4], "round 2 has 1 updates, but the checkpoint remembers 2"),
        ([], [], "round 2 has 0 updates, but the checkpoint remembers 2"),
        ([2, 7, 8], [4, 8, 8], "round 2 has 3 updates"),
        ([2, 6], [4, 8], "device 6 at rank 8, but the checkpoint remembers device 7 at rank 8"),
        ([2, 7], [4, 6], "device 7 at rank 6, but the checkpoint remembers device 7 at rank 8"),
        ([7, 2], [8, 4], "device 7 at rank 8, but the checkpoint remembers device 2 at rank 4"),
    ],
)
def test_another_round_than_remembered_is_refused(
    device: list[int], rank: list[int], reason: str
) -> None:
    memory = resumed(written(), 3)
    with pytest.raises(InputError, match=reason) as refused:
        memory.updates(2, device, rank)
    assert "remove the folder checkpoint" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_rounds_without_updates_need_not_be_noted() -> None:
    memory = resumed(written(), 5)
    assert memory.updates(4, [], []) == []
    with pytest.raises(InputError, match="round 4 has 1 updates, but the checkpoint remembers 0"):
        memory.updates(4, [1], [1])


def test_an_evaluation_that_was_not_made_is_refused() -> None:
    memory = resumed(written(), 5)
    for number in (4, 5):
        with pytest.raises(InputError, match=f"round {number} is evaluated, but"):
            memory.evaluation(number)


def test_a_run_that_ends_before_its_checkpoint_is_refused() -> None:
    memory = resumed(written(), 3)
    with pytest.raises(InputError, match="ends after round 2, but the checkpoint stands after"):
        memory.check_end(2)
    memory.check_end(3)
    memory.check_end(4)


@pytest.mark.parametrize(
    "note",
    [
        lambda memory: memory.note_updates(3, [1], [1], [Told(1.0, 1.0)]),
        lambda memory: memory.note_updates(4, [1, 2], [1], [Told(1.0, 1.0)]),
        lambda memory: memory.note_evaluation(2, 1.0, {"accuracy": 1.0}),
        lambda memory: memory.note_evaluation(4, 1.0, {"matthews": 1.0}),
    ],
)
def test_notes_that_make_no_sense_leave_the_memory_as_it_was(
    note: Callable[[Memory], None],
) -> None:
    memory = written()
    before = memory.arrays()
    with pytest.raises(ValueError, match=r"out of order|metrics|zip"):
        note(memory)
    assert all(np.array_equal(before[name], value) for name, value in memory.arrays().items())
    with pytest.raises(ValueError, match="out of order"):
        resumed(written(), 5).note_updates(4, [1], [1], [Told(1.0, 1.0)])


def test_an_update_takes_28_bytes() -> None:
    memory = Memory()
    memory.note_updates(1, range(1000), [1] * 1000, [Told(math.pi, math.e)] * 1000)
    size = sum(array.nbytes for array in memory.arrays().values())
    assert size == 28 * 1000 + 16
