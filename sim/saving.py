"""When a run saves where it stands, and what there is to resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from sim.checkpoint import Checkpoint, changed_keys, save_checkpoint
from sim.errors import InputError, Interrupted, RunError
from sim.learning import Estimate, Remembered
from sim.memory import Memory
from sim.scenario import Scenario
from sim.signals import StopRequest
from sim.stopwatch import Stopwatch
from sim.system import System
from sim.whole import PART


class Saving:
    """Writes checkpoints as the scenario says, and when the run is asked to stop.

    Parameters
    ----------
    out
        Run directory.
    system
        Whose run it is.
    learning
        Has what training made.
    watch
        Real time.
    request
        Whether the run was asked to stop.
    log
        Told of a checkpoint that could not be written.
    """

    def __init__(
        self,
        out: Path,
        system: System,
        learning: Estimate | Remembered,
        watch: Stopwatch,
        request: StopRequest,
        log: Callable[[str], None],
    ) -> None:
        self._out, self._system, self._learning = out, system, learning
        self._watch, self._request, self._log = watch, request, log
        self._every = system.scenario.output.checkpoint_every

    def after(self, round_index: int) -> None:
        """Save after a round, if it is time; stop, if that is asked for.

        Raises
        ------
        Interrupted
            If the run was asked to stop.
        RunError
            If it was, and the checkpoint cannot be written.
        """
        due = self._every is not None and round_index % self._every == 0
        # What is played again is on disk already.
        remembered = isinstance(self._learning, Remembered) and (
            round_index <= self._learning.memory.until
        )
        if (due or self._request.asked) and not remembered:
            with self._watch.part("write"):
                try:
                    self._save(round_index)
                except RunError as error:
                    if self._request.asked:
                        raise
                    # The last one is still there, and the next may find room.
                    self._log(str(error))
        if self._request.asked:
            raise Interrupted(
                f"stopped by {self._request.signal} after round {round_index}; `sim run --resume` "
                f"goes on with {self._out}"
            )

    def _save(self, round_index: int) -> None:
        memory, state = Memory(), {}
        if isinstance(self._learning, Remembered):
            memory, state = self._learning.memory, self._learning.state()
        checkpoint = Checkpoint(round_index, memory, state, dict(self._watch.total))
        data = self._system.workload.data_sha256
        save_checkpoint(self._out, self._system.scenario, data, checkpoint)


def finished(out: Path, scenario: Scenario) -> dict[str, Any] | None:
    """The summary of a run that has ended; None if there is something left to run.

    Parameters
    ----------
    out
        Run directory, if it is there.
    scenario
        The resolved scenario of the run that is to be resumed.

    Raises
    ------
    InputError
        If the folder holds something else than a run of this scenario.
    """
    # A run that was killed at its very beginning may leave a part of its first file, and no more.
    if not out.exists() or (out.is_dir() and all(path.suffix == PART for path in out.iterdir())):
        return None
    try:
        tree = yaml.safe_load((out / "scenario.yaml").read_text(encoding="utf-8"))
        before = Scenario.model_validate(tree)
    except (OSError, ValueError, yaml.YAMLError):
        raise InputError(
            f"--out {out}: holds no run that could be resumed; name another folder"
        ) from None
    cadence = {"checkpoint_every": scenario.output.checkpoint_every}
    output = before.output.model_copy(update=cadence)
    if before.model_copy(update={"output": output}) != scenario:
        keys = ", ".join(islice(changed_keys(out, scenario), 3))
        raise InputError(
            f"--out {out}: was begun with another scenario ({keys}); resume with that one, or name "
            "another folder"
        )
    try:
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{out / 'summary.json'}: cannot be read ({error})") from None
    return dict(summary)
