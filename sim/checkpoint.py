"""The checkpoint of a run: one safetensors file with what training made.

A run is resumed by playing it again from its start, with a `Memory` in the place of training, up to
the checkpoint's round; there the learner is restored and training goes on. Every other file is
written anew on the way, so it comes out as if the run had never stopped.

The file ends with the SHA-256 of all bytes before it, as the tensor `sha256`. It is written beside
the last one and then takes its place, so whatever stops the program leaves one of the two, whole.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
import yaml
from numpy.typing import NDArray

from sim.errors import InputError, RunError
from sim.memory import Memory
from sim.scenario import Scenario
from sim.whole import sync_folder, write_whole

if TYPE_CHECKING:
    from torch import Tensor

FOLDER, FILE = "checkpoint", "state.safetensors"

_FORMAT = 2
_PACKAGE = "fslora-sim"
#: What may move a bit of a run. It is told and not refused: a better library may be worth it.
_LIBRARIES = ("numpy", "scipy", "simpy", "cvxpy", "torch", "transformers")
_MEMORY, _LEARNER, _DIGEST = "memory.", "learner.", "sha256"
_DIGEST_BYTES = 32


def _installed() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A run after a round.

    Parameters
    ----------
    round
        The round; all that it merged, kept and released is in the learner's state.
    memory
        What training has told up to there.
    learner
        `Learner.state()`; empty for a run that trains nothing.
    host_s
        Real seconds so far by part of the program.
    versions
        Python and libraries that it was made with.
    """

    round: int
    memory: Memory
    learner: Mapping[str, Tensor]
    host_s: Mapping[str, float]
    versions: Mapping[str, str] = field(default_factory=_installed)

    @property
    def changes(self) -> list[str]:
        """Versions that are others now: the run goes on, but may not repeat itself to the bit."""
        return [
            f"{name} was {self.versions.get(name)} and is {now}"
            for name, now in _installed().items()
            if now != self.versions.get(name)
        ]


def save_checkpoint(
    out: Path, scenario: Scenario, data_sha256: str | None, checkpoint: Checkpoint
) -> None:
    """Write a run's checkpoint in the place of the last one.

    Parameters
    ----------
    out
        Run directory.
    scenario
        The resolved scenario.
    data_sha256
        Digest of the data; None if the run reads none.
    checkpoint
        What to write.

    Raises
    ------
    RunError
        If it cannot be written. The last one is still there, so a run may well go on.
    ValueError
        If the memory holds later rounds: a run that is played again is not saved on the way.
    """
    if checkpoint.memory.last > checkpoint.round:
        raise ValueError(f"round {checkpoint.memory.last} in a checkpoint of {checkpoint.round}")
    described = {
        "format": _FORMAT,
        "package": version(_PACKAGE),
        "scenario": _digest_of(scenario),
        "data": data_sha256,
        "versions": dict(checkpoint.versions),
        "round": checkpoint.round,
        "host_s": dict(checkpoint.host_s),
    }
    content = memoryview(_serialize(checkpoint, json.dumps(described, sort_keys=True)))
    content = content[:-_DIGEST_BYTES]
    folder = out / FOLDER
    try:
        if not folder.is_dir():
            folder.mkdir()
            sync_folder(out)
        write_whole(folder / FILE, content, hashlib.sha256(content).digest())
    except OSError as error:
        raise RunError(
            f"{folder / FILE}: the checkpoint after round {checkpoint.round} cannot be written "
            f"({error.strerror or error}); the one before it, if any, is still there"
        ) from None


def load_checkpoint(out: Path, scenario: Scenario, data_sha256: str | None) -> Checkpoint | None:
    """Read a run's checkpoint; its memory answers up to its round.

    The run directory's `scenario.yaml`, if it is there, serves to name what has changed, so it must
    not have been written anew yet.

    Parameters
    ----------
    out, scenario, data_sha256
        As for `save_checkpoint`.

    Returns
    -------
    Checkpoint or None
        None if there is none: the run begins at its start.

    Raises
    ------
    InputError
        If it is not a checkpoint, is damaged, or belongs to another scenario, other data, or
        another version of the program.
    """
    path = out / FOLDER / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); see to it") from None
    try:
        described = _described(content)
        _check_origin(described, out, scenario, data_sha256)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    arrays, learner = _deserialize(content)
    return Checkpoint(
        described["round"],
        Memory.from_arrays(described["round"], arrays),
        learner,
        described["host_s"],
        described["versions"],
    )


def _serialize(checkpoint: Checkpoint, described: str) -> bytes:
    """The file, with zeros for its digest: safetensors puts the smallest number format last."""
    arrays = {_MEMORY + name: value for name, value in checkpoint.memory.arrays().items()}
    arrays[_DIGEST] = np.zeros(_DIGEST_BYTES, dtype=np.uint8)
    metadata = {"checkpoint": described}
    if not checkpoint.learner:
        return safetensors.numpy.save(arrays, metadata)
    import torch
    from safetensors.torch import save

    tensors = {_LEARNER + name: value.contiguous() for name, value in checkpoint.learner.items()}
    return save({**{n: torch.from_numpy(a) for n, a in arrays.items()}, **tensors}, metadata)


def _deserialize(content: bytes) -> tuple[dict[str, NDArray[np.generic]], dict[str, Tensor]]:
    """Arrays of the memory and tensors of the learner."""
    _, header = _header(content)
    if not any(name.startswith(_LEARNER) for name in header):
        return _part(safetensors.numpy.load(content), _MEMORY), {}
    from safetensors.torch import load

    tensors = load(content)
    memory = {name: tensor.numpy() for name, tensor in _part(tensors, _MEMORY).items()}
    return memory, _part(tensors, _LEARNER)


def _part(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {n.removeprefix(prefix): value for n, value in values.items() if n.startswith(prefix)}


def _header(content: bytes) -> tuple[int, dict[str, Any]]:
    """Length and entries of the header of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return length, json.loads(content[8 : 8 + length])


def _described(content: bytes) -> dict[str, Any]:
    """What a file says of itself, once it is known to be whole."""
    try:
        length, header = _header(content)
        described: dict[str, Any] = json.loads(header["__metadata__"]["checkpoint"])
        size = 8 + length + header[_DIGEST]["data_offsets"][1]
        form = described["format"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise InputError(
            f"not a checkpoint, or damaged; remove the folder {FOLDER} to start afresh"
        ) from None
    if form != _FORMAT:
        raise InputError(
            f"its format is {form}, this program reads {_FORMAT}; resume with the program that "
            f"wrote it, or remove the folder {FOLDER} to start afresh"
        )
    if len(content) < size:
        raise InputError(
            f"truncated, {len(content)} of {size} bytes; remove the folder {FOLDER} to start afresh"
        )
    whole = memoryview(content)
    if hashlib.sha256(whole[:-_DIGEST_BYTES]).digest() != whole[-_DIGEST_BYTES:]:
        raise InputError(
            f"damaged, its digest does not fit; remove the folder {FOLDER} to start afresh"
        )
    return described


def _check_origin(
    described: Mapping[str, Any], out: Path, scenario: Scenario, data_sha256: str | None
) -> None:
    """Refuse what another program, scenario or data set has left."""
    now = version(_PACKAGE)
    if described["package"] != now:
        raise InputError(
            f"written by version {described['package']}, this is {now}; resume with that one, or "
            f"remove the folder {FOLDER} to start afresh"
        )
    if described["scenario"] != _digest_of(scenario):
        keys = ", ".join(islice(changed_keys(out, scenario), 3))
        raise InputError(
            f"of another scenario{f' ({keys})' if keys else ''}; resume with that one, or name "
            "another --out"
        )
    if described["data"] != data_sha256:
        raise InputError(
            "of other data under the same name; resume with those, or name another --out"
        )


def _digest_of(scenario: Scenario) -> str:
    text = json.dumps(_without_cadence(scenario.model_dump(mode="json")), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _without_cadence(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A scenario less how often it is saved, which bears on nothing."""
    output = {key: value for key, value in tree["output"].items() if key != "checkpoint_every"}
    return {**tree, "output": output}


def changed_keys(out: Path, scenario: Scenario) -> Iterator[str]:
    """Keys in which the scenario in the run directory, if there is one, is another."""
    try:
        before = _without_cadence(yaml.safe_load((out / "scenario.yaml").read_text("utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
        return
    yield from _differing(before, _without_cadence(scenario.model_dump(mode="json")), "")


def _differing(before: Any, now: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*now, *(key for key in before if key not in now)]:
            yield from _differing(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    elif before != now:
        yield f"{path} was {_show(before)} and is {_show(now)}"


def _show(value: Any) -> str:
    """A value in one line, cut where it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
