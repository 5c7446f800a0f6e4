"""How long a round lasts by formula, from the devices drawn for it and without events."""

from __future__ import annotations

import math

import numpy as np

from sim.dispatch import Batch, FloatArray
from sim.errors import RunError
from sim.system import System
from wireless.link import LinearLink, Link, linear_efficiency
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


def closed_after_s(
    system: System, batch: Batch, band_hz: float, share: float = 1.0, after_s: float = math.inf
) -> float:
    """Seconds after `Batch.heard_s` at which a round is closed, if nothing goes wrong.

    Parameters
    ----------
    system
        What is simulated.
    batch
        The round's devices.
    band_hz
        Uplink band of a cell.
    share
        Share of the devices that is waited for, rounded up.
    after_s
        The latest.
    """
    if not len(batch):
        return 0.0
    ready_s = batch.after_s + batch.compute_s
    if share == 1.0 and system.world.whole is None:
        cell = None if not batch.cell.any() else batch.cell
        link = _simplest(batch.link, band_hz)
        end_s = float(system.world.rule.round_time(ready_s, batch.bits, link, band_hz, cell=cell))
    else:
        finish_s: FloatArray = np.zeros(len(batch))
        for places, sent in transfers_of(system, batch, band_hz):
            finish_s[places] = sent.finish_s
        end_s = float(np.sort(finish_s)[math.ceil(share * len(batch)) - 1])
    return min(end_s, after_s)


def _simplest(link: Link, band_hz: float) -> Link:
    """Links that are linear over the whole band as such, on which rules have closed forms."""
    efficiency = linear_efficiency(link, band_hz)
    return link if np.isnan(efficiency).any() else LinearLink(efficiency)
