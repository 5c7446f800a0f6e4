"""The network of a system: its uplinks, and what changes them in the course of time."""

from __future__ import annotations

import math
from collections.abc import Callable

from sim.clock import Clock
from sim.network import Network, Process
from sim.system import System
from sim.timeline import Interval, Piece, Spectrum
from sim.uplink import Transfer, Uplink, make_uplink


def make_network(
    system: System,
    on_interval: Callable[[Interval], None],
    on_spectrum: Callable[[Spectrum], None],
    on_piece: Callable[[Piece], None] | None = None,
) -> Network:
    """The server, the devices' downlinks, and the uplinks of a system.

    Parameters
    ----------
    system
        What is simulated.
    on_interval, on_spectrum, on_piece
        As for `Network`.
    """
    scenario, world, clock = system.scenario, system.world, Clock()
    radio, losses = scenario.radio, scenario.failures.losses
    channel = world.fleet.channel
    blocks = channel.radio.fading.kind == "block" and channel.radio.fades

    def uplink(
        on_end: Callable[[Transfer], None],
        on_change: Callable[[float, int], None],
        on_piece: Callable[[Transfer, float, float, float, float], None] | None,
    ) -> Uplink:
        return make_uplink(
            world.rule,
            world.whole,
            None if channel.changes else channel.start.uplink,
            radio.reallocation_s,
            clock,
            system.band_hz(clock.now),
            on_end,
            on_change,
            on_piece,
            constant=world.band is None and not blocks,
        )

    network = Network(
        clock,
        uplink,
        radio.downlink_bandwidth_hz,
        0.0 if losses is None else losses.backoff_s,
        on_interval,
        on_spectrum,
        on_piece,
    )
    if world.band is not None:
        clock.process(_band(network, system))
    if blocks:
        clock.process(_fading(network, system))
    return network


def _band(network: Network, system: System) -> Process:
    """The uplink band of every cell, as it changes in the course of time."""
    while True:
        change_s = system.next_band_s(network.clock.now)
        if not math.isfinite(change_s):
            return
        yield network.clock.at(change_s)
        network.set_band(system.band_hz(change_s))


def _fading(network: Network, system: System) -> Process:
    """Fading blocks: whoever is sending when one begins has another link from then on."""
    block_s, number = system.fleet.channel.radio.fading.block_s, 0
    while True:
        number += 1
        yield network.clock.at(number * block_s)
        network.relink(system.fleet.channel)
