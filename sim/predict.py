"""How long a round lasts by formula, from the devices drawn for it and without events."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sim.dispatch import Batch, FloatArray
from sim.errors import RunError
from sim.system import System
from wireless.spectrum import Transfers


def transfers_of(
    system: System, batch: Batch, band_hz: float
) -> list[tuple[np.ndarray, Transfers]]:
    """Uploads of each cell's devices by the rule's own formula, with their places in the batch.

    Times count from `Batch.heard_s`.

    Raises
    ------
    RunError
        If a cell has too few resource blocks.
    """
    world, found = system.world, []
    ready_s = batch.after_s + batch.compute_s
    for cell in np.unique(batch.cell):
        places = np.flatnonzero(batch.cell == cell)
        try:
            sent = world.rule.transfers(
                ready_s[places], batch.bits[places], batch.link.take(places), band_hz, world.whole
            )
        except ValueError as error:
            if world.whole is None:
                raise
            raise RunError(
                f"radio.block_hz: {len(places)} devices share {band_hz:g} Hz ({error})"
            ) from None
        found.append((places, sent))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Foretold:
    """What the rule's own formula tells of a round's uploads, if nothing goes wrong.

    Parameters
    ----------
    closed_after_s
        Seconds after `Batch.heard_s` at which the round is closed.
    reserved_hz
        (M,) band that a rule that reserves gives to each device; None under another rule.
    """

    closed_after_s: float
    reserved_hz: FloatArray | None


def foretell(
    system: System, batch: Batch, band_hz: float, share: float = 1.0, after_s: float = math.inf
) -> Foretold:
    """Work out when a round is closed, and what it reserves.

    Parameters
    ----------
    system
        What is simulated.
    batch
        The round's devices.
    band_hz
        Uplink band of a cell, > 0.
    share
        Share of the devices that is waited for, rounded up.
    after_s
        The latest.

    Raises
    ------
    RunError
        If a cell has too few resource blocks.
    """
    world, members = system.world, len(batch)
    if not members:
        return Foretold(system.slot_s(batch.round), np.zeros(0) if world.rule.reserves else None)
    if share == 1.0 and world.whole is None and not world.rule.reserves:
        cell = None if not batch.cell.any() else batch.cell
        ready_s = batch.after_s + batch.compute_s
        end_s = float(world.rule.round_time(ready_s, batch.bits, batch.link, band_hz, cell=cell))
        return Foretold(min(end_s, after_s), None)
    finish_s, reserved_hz = np.zeros(members), np.zeros(members)
    for places, sent in transfers_of(system, batch, band_hz):
        finish_s[places], reserved_hz[places] = sent.finish_s, sent.bandwidth_hz
    end_s = float(np.sort(finish_s)[math.ceil(share * members) - 1])
    return Foretold(min(end_s, after_s), reserved_hz if world.rule.reserves else None)
