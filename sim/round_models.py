"""From the scenario's round model to the optimizer's."""

from __future__ import annotations

import csv

import numpy as np

from optimizer.rounds import ROUND_MODELS, RoundModel, Tables
from sim.errors import InputError
from sim.sections.policy import PolicyChoice, TabulatedRounds

_COLUMNS = ["device", "rank", "per_probability", "fixed"]


def round_model(choice: PolicyChoice, rank: int, devices: int) -> RoundModel:
    """The round model that a policy's plans are judged by.

    Parameters
    ----------
    choice
        The policy.
    rank
        Global rank, to which tables reach.
    devices
        Number of devices, of which tables have a column each.

    Raises
    ------
    InputError
        If a file of tables cannot be read, has a row missing, or a value is refused.
    """
    given = choice.rounds
    if isinstance(given, TabulatedRounds):
        try:
            return _read_tables(given, rank, devices)
        except OSError as error:
            raise InputError(
                f"policy.rounds.file = '{given.file}': cannot be read ({error.strerror}); "
                "give its path from here"
            ) from None
        except ValueError as error:
            raise InputError(f"policy.rounds.file = '{given.file}': {error}") from None
    return ROUND_MODELS[given.model](**given.model_dump(exclude={"model"}))


def _read_tables(given: TabulatedRounds, rank: int, devices: int) -> Tables:
    """Tables by rank and device from a file with a row for each of both."""
    table = np.full((2, rank, devices), np.nan)
    with open(given.file, newline="", encoding="utf-8") as stream:
        rows = csv.reader(stream)
        if next(rows, []) != _COLUMNS:
            raise ValueError(f"its header must be {','.join(_COLUMNS)}")
        for number, row in enumerate(rows, start=2):
            try:
                device, k = int(row[0]), int(row[1])
                values = [float(word) for word in row[2:]]
                if len(values) != 2 or not (0 <= device < devices and 1 <= k <= rank):
                    raise ValueError
            except (ValueError, IndexError):
                raise ValueError(
                    f"line {number} is '{','.join(row)}': give a device of 0 to {devices - 1}, a "
                    f"rank of 1 to {rank}, and two numbers"
                ) from None
            table[:, k - 1, device] = values
    missing = np.argwhere(np.isnan(table[0]))
    if len(missing):
        k, device = missing[0]
        raise ValueError(
            f"has no row of device {device} at rank {k + 1}; give one for every device and rank"
        )
    return Tables(given.constant, table[0], table[1])
