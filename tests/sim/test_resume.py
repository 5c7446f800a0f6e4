"""Learner, memory and checkpoint together: training that is broken off and taken up again."""

from collections.abc import Callable
from pathlib import Path

import torch

from fslora.methods import Job
from fslora.trainer import Learner
from sim.checkpoint import FILE, FOLDER, Checkpoint, load_checkpoint, save_checkpoint
from sim.host import make_learner
from sim.memory import Memory, Told
from sim.scenario import Scenario
from sim.system import build_system
from sim.updates import update_norm

DATA = "d" * 64


def play(out: Path, scenario: Scenario, learner: Learner, last: int) -> list[tuple[float, ...]]:
    """Mix in one update per round, trained from a version up to two rounds old, and save.

    Whom a round asks, and at which rank, follows from what the one before told.
    """
    checkpoint = load_checkpoint(out, scenario, DATA)
    memory = Memory() if checkpoint is None else checkpoint.memory
    rows, loss = [], 1.0
    for number in range(1, last + 1):
        device, rank = int(1e6 * loss) % 4, 2 + int(1e5 * loss) % 7
        told = memory.updates(number, [device], [rank])
        if told is None:
            learner.keep(number)
            version = max(1, number - number % 3)
            (update,) = learner.train([Job(device, rank, number, number)], [version])
            learner.mix(version, 0.4)
            learner.aggregate([update], [0.4])
            if number > 2:
                learner.release(number - 2)
            told = [Told(update.loss, update_norm(update), update.rank_kept)]
            memory.note_updates(number, [device], [rank], told)
        evaluation = memory.evaluation(number) if number % 2 else None
        if checkpoint is not None and number == checkpoint.round:
            learner.restore(checkpoint.learner)
        if number % 2 and evaluation is None:
            found = learner.evaluate()
            evaluation = found.loss, dict(found.metrics)
            memory.note_evaluation(number, *evaluation)
        loss = told[0][0]
        rows.append(
            (device, rank, *told[0], *(() if evaluation is None else evaluation[1].values()))
        )
        if number > memory.until:
            save_checkpoint(out, scenario, DATA, Checkpoint(number, memory, learner.state(), {}))
    return rows


def test_played_again_from_a_checkpoint_ends_as_if_never_stopped(
    tiny: Callable[..., Scenario], tmp_path: Path
) -> None:
    scenario = tiny({"training.server": {"name": "adam", "learning_rate": 0.01}})
    through, other = (make_learner(build_system(scenario)) for _ in range(2))
    fresh = other.state()
    (tmp_path / "through").mkdir()
    rows = play(tmp_path / "through", scenario, through, 5)
    wanted = through.state()
    assert len({row[0] for row in rows}) > 1
    for stops in (1, 4):
        out = tmp_path / str(stops)
        out.mkdir()
        other.restore(fresh)
        assert play(out, scenario, other, stops) == rows[:stops]
        other.restore(fresh)
        assert play(out, scenario, other, 5) == rows
        state = other.state()
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], wanted[name]) for name in wanted)
        one, whole = (folder / FOLDER / FILE for folder in (out, tmp_path / "through"))
        assert one.read_bytes() == whole.read_bytes()
