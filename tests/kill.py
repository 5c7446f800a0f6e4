"""Runs that are killed at random moments, resumed, and compared with whole ones byte by byte.

    python -m tests.kill [--moments 7] [--seed 1] [--variants NAME ...] [--again 0.3] [--imported]

Every scenario runs whole once. Then, moment by moment, it runs in a process of its own that gets
SIGKILL at a time drawn uniformly from the duration of the whole run, its start and its final
writing included, and is resumed, and perhaps killed again, until it comes to its end. What is left
then must be what the whole run has left: every file but `host.csv`, `summary.json` without
`host_s`, and `checkpoint/`, which tells how long things took. One line per moment is printed; the
exit code is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sim import cli

_WORDS = ("radio", "device", "uplink", "adapter", "matrix", "rank", "round", "server", "phone")

#: What every scenario has: a few devices and sentences, and a checkpoint after every third round.
COMMON: Mapping[str, Any] = {
    "seed": 1,
    "data": {"group_column": "place", "length": 32, "held_out_per_group": 2},
    "training": {"steps": 2, "batch": 2, "device": "cpu", "threads": 1},
    "fleet": {"devices": 5, "jitter_sigma": 0.3},
    "policy": {"name": "uniform", "probability": 0.6},
    "stop": {"rounds": 20, "target": {"metric": "eval_loss", "value": 1.0}},
    "output": {"checkpoint_every": 3, "timeline": "full"},
}

_DIVIDED = {"downlink": "unicast", "allocation": "work-conserving"}

#: The sections in which scenarios differ; keys of a section are added to the common ones, but for
#: those that choose something else by its name or source.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "synchronous": {},
    "fedbuff": {
        "radio": _DIVIDED,
        "schedule": {"name": "fedbuff", "buffer": 2, "concurrency": 4},
    },
    "failures": {
        "fleet": {
            "battery": True,
            "availability": {"name": "markov", "mean_on_s": 60.0, "mean_off_s": 10.0},
        },
        "radio": {"allocation": "work-conserving", "fading": {"name": "block"}},
        "schedule": {"name": "deadline", "deadline_s": 5.0, "late": "discard"},
        "failures": {
            "departures": True,
            "crashes": {"mean_s": 20.0},
            "losses": {"probability": 0.2, "retries": 1},
            "restarts": {"mean_s": 40.0, "down_s": 5.0},
        },
    },
    "oort": {"policy": {"name": "oort", "cohort": 2}},
    "estimated": {
        "policy": {
            "name": "statistical",
            "knowledge": "estimated",
            "replan": {"every": 4, "cost_s": 0.1},
        }
    },
    "oracle": {"policy": {"name": "statistical", "knowledge": "oracle"}},
    "momentum": {"training": {"server": "momentum", "momentum": 0.5, "decay": "cosine"}},
    "pruning": {
        "method": {"name": "hetlora", "pruning_weight": 1.0, "pruning_factor": 0.5},
        "training": {"decay": "linear"},
    },
    "groups": {
        "method": {"name": "hierfedlora", "group_rounds": 3},
        "radio": {"downlink": "unicast"},
    },
    "cores": {"method": {"name": "ce-lora"}, "radio": {"downlink": "unicast"}},
    "cut": {"method": {"name": "splitlora"}, "radio": {"downlink": "unicast"}},
    "salience": {"method": {"name": "hafl"}, "fleet": {"rank_caps": [16, 4, 8]}},
    "air": {
        "method": {"name": "fedsa-lora"},
        "radio": {"uplink": "analog", "fading": "per-round"},
    },
    "timing-only": {
        "data": {"source": "builtin:synthetic", "length": 32},
        "training": {"timing_only": True},
        "stop": {"rounds": 300},
    },
}


def write_scenario(folder: Path, name: str) -> Path:
    """Write one of the scenarios, and the sentences that it reads, into a folder."""
    tree = {"name": name, **json.loads(json.dumps(COMMON))}
    for section, values in VARIANTS[name].items():
        other = values.keys() & {"name", "source"}
        tree[section] = dict(values) if other else {**tree.get(section, {}), **values}
    if "source" not in tree["data"]:
        rows = folder / "rows.csv"
        draw = np.random.default_rng(3)
        lines = [f"{' '.join(draw.choice(_WORDS, 8))},town {n % 6}" for n in range(120)]
        rows.write_text("\n".join(["text,place", *lines, ""]), encoding="utf-8")
        tree["data"]["source"] = str(rows)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


def start(arguments: Sequence[object], told: Path, imported: bool = False) -> BaseProcess:
    """Start `sim` with some arguments in a process of its own.

    Parameters
    ----------
    arguments
        After `sim`.
    told
        File for what it prints.
    imported
        Whether it finds its packages imported, which spares the seconds that this takes.
    """
    context = multiprocessing.get_context("forkserver" if imported else "spawn")
    if imported:
        context.set_forkserver_preload(["sim.run", "sim.host", "fslora.trainer", "fslora.peft_io"])
    process = context.Process(target=_sim, args=([*map(str, arguments)], told))
    process.start()
    return process


def _sim(arguments: list[str], told: Path) -> None:
    with told.open("a", encoding="utf-8", buffering=1) as stream:
        sys.stdout = sys.stderr = stream
        # A shell may have started all this with SIGINT ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["sim", *arguments]
        cli.main()


def left(folder: Path) -> dict[str, bytes]:
    """What a finished run leaves, by the names of the files, without the host's times."""
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "checkpoint" and path.name != "host.csv"
    }
    summary = json.loads(files["summary.json"])
    del summary["host_s"]
    files["summary.json"] = json.dumps(summary).encode()
    return files


def differing(one: Path, other: Path) -> list[str]:
    """Names of the files in which what two runs have left differs."""
    ours, theirs = left(one), left(other)
    return [n for n in sorted({*ours, *theirs}) if ours.get(n) != theirs.get(n)]


@dataclass(frozen=True)
class Trials:
    """A scenario, run whole once, to be killed and resumed.

    Parameters
    ----------
    file
        The scenario.
    whole
        Directory of the whole run.
    seconds
        How long that took.
    imported
        As for `start`.
    """

    file: Path
    whole: Path
    seconds: float
    imported: bool

    @classmethod
    def begin(cls, folder: Path, name: str, imported: bool) -> Trials:
        """Run one of the scenarios whole."""
        file, out = write_scenario(folder, name), folder / f"{name}-whole"
        if imported:  # once beforehand, so that the server of forks is there
            start(["list", "policies"], folder / "told", imported).join()
        began = time.perf_counter()
        process = start(["run", file, "--out", out, "--quiet"], folder / "told", imported)
        process.join()
        if process.exitcode:
            raise RuntimeError((folder / "told").read_text(encoding="utf-8"))
        return cls(file, out, time.perf_counter() - began, imported)

    def run(self, out: Path, kills_s: Iterator[float]) -> list[str]:
        """Run into a folder, kill after so many seconds, resume, until it comes to its end.

        Returns
        -------
        list of str
            Where each kill found it: the rounds recorded and that of the checkpoint, if any.

        Raises
        ------
        RuntimeError
            If it ends in any other way, or leaves something else than the whole run.
        """
        told, kills = out.with_suffix(".told"), []
        while True:
            arguments = ["run", self.file, "--out", out, "--quiet", "--resume"]
            process = start(arguments, told, self.imported)
            process.join(next(kills_s, None))
            if process.exitcode is None:
                process.kill()
                process.join()
            if process.exitcode == 0:
                break
            if process.exitcode != -signal.SIGKILL:
                raise RuntimeError(f"code {process.exitcode} after {kills}: {told.read_text()}")
            kills.append(_found(out))
        names = differing(self.whole, out)
        if names:
            raise RuntimeError(f"{', '.join(names)} differ after {kills}")
        return kills


def _found(out: Path) -> str:
    """Where a run that was killed had come to."""
    if not (out / "rounds.csv").exists():
        return "before its files"
    rounds = (out / "rounds.csv").read_bytes().count(b"\n") - 2
    state = out / "checkpoint" / "state.safetensors"
    saved = "no checkpoint"
    if state.exists():
        content = state.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        saved = f"checkpoint of {json.loads(header['__metadata__']['checkpoint'])['round']}"
    done = ", adapter" if (out / "adapter").exists() else ""
    return f"round {rounds}, {saved}{done}"


def main() -> int:
    """Kill and resume; tell how it went."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--moments", type=int, default=7, help="per scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--again", type=float, default=0.3, help="chance of each further kill")
    parser.add_argument("--imported", action="store_true", help="leave out the time of imports")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    draw = random.Random(options.seed)
    moments = kills = wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in options.variants:
            trials = Trials.begin(Path(folder), name, options.imported)
            print(f"{name}: {trials.seconds:.1f} s whole", flush=True)
            for number in range(options.moments):
                out = Path(folder) / f"{name}-{number}"
                times = [draw.uniform(0, trials.seconds)]
                while draw.random() < options.again:
                    times.append(draw.uniform(0, trials.seconds))
                try:
                    found = trials.run(out, iter(times))
                    how = "; ".join(found) or "had ended"
                    kills += len(found)
                except RuntimeError as error:
                    wrong += 1
                    how = f"WRONG: {error}"
                moments += 1
                at = ", ".join(f"{each:.2f}" for each in times)
                print(f"{name} {number}: killed after {at} s: {how}", flush=True)
                if not how.startswith("WRONG"):
                    shutil.rmtree(out)
    print(f"{moments} moments, {kills} kills, {wrong} runs that did not come out the same")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
