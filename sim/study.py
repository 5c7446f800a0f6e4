"""Studies: variants of one scenario, each on the same seeds, run side by side and compared."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from sim.compare import Comparison, compare
from sim.errors import InputError, RunError
from sim.load import explain, load_scenario, read_yaml
from sim.rundir import open_run
from sim.scenario import Scenario
from sim.sections.base import Section

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Study(Section):
    """What is run."""

    base: str
    """File of the scenario that all have in common, from the study's folder."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
    """Root seeds; runs of one seed face the same fleet, channels and data."""
    variants: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    """Per name the keys in which it differs, as in `sim run --set`; the first one is what others
    are compared with."""


@dataclass(frozen=True, slots=True)
class Part:
    """One run of a study.

    Parameters
    ----------
    scenario
        What is run.
    folder
        Its run directory.
    """

    scenario: Scenario
    folder: Path


def load_study(path: Path, out: Path) -> list[Part]:
    """Read a study and check all its scenarios.

    Parameters
    ----------
    path
        The study in YAML.
    out
        Folder of its run directories, NAME-SEED.

    Returns
    -------
    list of Part
        Variant by variant, seed by seed.

    Raises
    ------
    InputError
        If the study or one of its scenarios is refused.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; docs/methods.md shows what a study looks like")
    tree = read_yaml(path, "sim schema", "what keys there are")
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        problems = [explain(detail, Study) for detail in error.errors()]
        raise InputError(f"{path}: " + "\n".join(problems)) from None
    parts = []
    for name, changes in study.variants.items():
        assignments = [f"{key}={_flow(value)}" for key, value in changes.items()]
        for seed in study.seeds:
            try:
                scenario = load_scenario(
                    path.parent / study.base, [*assignments, f"name={name}", f"seed={seed}"]
                )
            except InputError as error:
                raise InputError(f"{path}: variants.{name}: {error}") from None
            parts.append(Part(scenario, out / f"{name}-{seed}"))
    return parts


def run_study(
    parts: list[Part], workers: int, tell: Callable[[int, str], None]
) -> tuple[Comparison, Mapping[Path, str]]:
    """Run what has not finished before, several at a time, and compare what has.

    Parameters
    ----------
    parts
        What to run.
    workers
        Processes.
    tell
        Called with how many have ended, and how the latest did.

    Returns
    -------
    tuple of Comparison and dict
        The comparison, and per run directory why it has not come to its end.

    Raises
    ------
    InputError
        If nothing has finished, or the scenarios have no target.
    """
    failed: dict[Path, str] = {}
    # Fresh processes: a fork would share the threads of a library that has started some.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        running = {pool.submit(_run, part): part for part in parts}
        try:
            for count, future in enumerate(as_completed(running), 1):
                folder, trouble = running[future].folder, future.result()
                if trouble:
                    failed[folder] = trouble
                tell(count, f"{folder.name}: {trouble or 'done'}")
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    ended = [part for part in parts if part.folder not in failed]
    if not ended:
        raise InputError("; ".join(f"{folder}: {why}" for folder, why in failed.items()))
    return compare([open_run(part.folder) for part in ended], None), failed


def _end_with_parent() -> None:
    """Ask this process to save and end once the one that has started it is no more."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _run(part: Part) -> str:
    """Run one scenario, or go on with it; what went wrong, if something did."""
    from sim.run import run

    try:
        run(part.scenario, part.folder, resume=True)
    except (InputError, RunError) as error:
        return str(error)
    return ""


def _flow(value: Any) -> str:
    """A value as `--set` takes it."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
