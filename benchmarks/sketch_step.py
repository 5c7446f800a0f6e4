"""Which step size suits a sketched device: rounds to a loss, by rank, rule, clipping and rate.

Thirty devices hold the embedded text, three per package; each takes part in a round with
probability 0.2 and trains five steps of four chunks of 64 bytes at a common rank k of r = 16. The
rules are those of `LocalTraining.sketch_step`. Printed are, as means over seeds, the rounds until
the held-out loss has fallen by 0.02 nats per byte and its fall after the last round; `-` where not
every seed got there, `diverged` where one ended above where it began or lost its numbers.

    python -m benchmarks.sketch_step [--device cuda] [--rounds 30] [--seeds 1] [--out FILE]
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from fslora.data import Dataset, load_stdlib, partition, tokenize
from fslora.data.tokens import ByteTokenizer
from fslora.local import LocalTraining, SketchStep
from fslora.lora import LoraSpec, find_layout
from fslora.methods import METHODS, Job
from fslora.models import BUILTIN, load_model
from fslora.trainer import Diverged, Learner

DEVICES, PROBABILITY, RANK = 30, 0.2, 16
EVALUATE_EVERY = 2
#: How far the held-out loss has to fall, in nats per byte.
FALL = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: held-out loss before training and after every second round."""

    losses: list[float]

    @property
    def rounds(self) -> int | None:
        """Rounds until the loss has fallen by `FALL`."""
        return next(
            (
                EVALUATE_EVERY * t
                for t, loss in enumerate(self.losses)
                if loss <= self.losses[0] - FALL
            ),
            None,
        )

    @property
    def diverged(self) -> bool:
        """Whether the run ended above where it began."""
        return not self.losses[-1] < self.losses[0]


def pilot(
    data: Dataset, local: LocalTraining, rank: int, seed: int, rounds: int, device: str
) -> Outcome:
    """Train for some rounds at a common rank."""
    base = load_model(BUILTIN, "causal-lm", 0, 0, seed, torch.float32).to(torch.device(device))  # type: ignore[arg-type]
    layout = find_layout(base, ("all-linear",), heads=False)
    shards = partition(data.train, "natural", DEVICES, seed)
    learner = Learner.start(
        base, layout, data, shards, LoraSpec(RANK, 16.0), local, METHODS["fslora"], seed
    )
    share = np.array([len(shard) for shard in shards]) / len(data.train)
    rng = np.random.default_rng((seed, 3))
    losses = [learner.evaluate().loss]
    for round_index in range(1, rounds + 1):
        cohort = np.flatnonzero(rng.random(DEVICES) < PROBABILITY)
        jobs = [Job(int(n), rank, int(rng.integers(2**62)), round_index) for n in cohort]
        try:
            learner.aggregate(learner.train(jobs), (share[cohort] / PROBABILITY).tolist())
            if round_index % EVALUATE_EVERY == 0:
                losses.append(learner.evaluate().loss)
        except Diverged:
            losses.append(math.nan)
            break
    return Outcome(losses)


def main() -> None:
    """Run the grid and print it."""
    parser = argparse.ArgumentParser(description="step-size rules of sketched devices")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 4, 1])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = tokenize(load_stdlib(), ByteTokenizer(), "causal-lm", 64, 6)
    rows: list[list[object]] = [["rule", "clip_norm", "rate", "rank", "rounds", "fall"]]
    rules: tuple[SketchStep, ...] = ("scaled", "common")
    for rule in rules:
        for clip in (None, 2.0):
            for rate in options.rates:
                for rank in options.ranks:
                    if rank == RANK and rule == "common":
                        continue  # a whole adapter has gain 1: the rules agree
                    local = LocalTraining(5, 4, rate, clip_norm=clip, sketch_step=rule)
                    runs = [
                        pilot(data, local, rank, seed, options.rounds, options.device)
                        for seed in range(1, options.seeds + 1)
                    ]
                    reached = [run.rounds for run in runs]
                    known = [each for each in reached if each is not None]
                    row: list[object] = [rule, clip or "none", rate, rank]
                    if any(run.diverged for run in runs):
                        row += ["diverged", ""]
                    else:
                        row += [
                            f"{mean(known):.1f}" if len(known) == len(runs) else "-",
                            f"{mean(run.losses[0] - run.losses[-1] for run in runs):.4f}",
                        ]
                    rows.append(row)
                    print("  ".join(str(cell).ljust(8) for cell in row), flush=True)
    if options.out is not None:
        with options.out.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
