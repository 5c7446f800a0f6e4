"""A fleet of devices: speeds, memories, batteries and links."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless import streams
from wireless.channel import Channel
from wireless.devices import DevicePreset, draw_kinds
from wireless.mobility import Mobility, Static
from wireless.radio import RadioParameters

Move = Callable[[NDArray[np.float64], NDArray[np.float64]], Mobility]
"""From places (N,), (N,) in metres at time zero to the motion that begins there."""


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """N devices.

    Parameters
    ----------
    kind : ndarray of int, shape (N,)
        Kinds of the devices, as numbers of the presets they were drawn from.
    compute_flops : ndarray, shape (N,)
        Effective training speeds in FLOP/s.
    step_overhead_s : ndarray, shape (N,)
        Fixed times of one local step beside its arithmetic, in seconds.
    memory_bytes : ndarray, shape (N,)
        Memory that training may use.
    compute_power_w : ndarray, shape (N,)
        Powers drawn while training, in watts.
    battery_j : ndarray, shape (N,)
        Energies of the full batteries in joules, ``inf`` on mains.
    channel : Channel
        Their links at any time; `channel.start` holds those at time zero.
    """

    kind: NDArray[np.intp]
    compute_flops: NDArray[np.float64]
    step_overhead_s: NDArray[np.float64]
    memory_bytes: NDArray[np.float64]
    compute_power_w: NDArray[np.float64]
    battery_j: NDArray[np.float64]
    channel: Channel

    def __len__(self) -> int:
        """Return the number of devices N."""
        return len(self.compute_flops)

    @property
    def broadcast_bps(self) -> float:
        """Rate of one transmission over the downlink band that everybody decodes at time zero."""
        rate = self.channel.start.downlink.rate(self.channel.radio.downlink_bandwidth_hz)
        return float(rate.min())


def draw_fleet(
    seed: int,
    devices: int,
    kinds: DevicePreset | Sequence[DevicePreset],
    compute_spread_sigma: float,
    memory_spread_sigma: float,
    radio: RadioParameters,
    share: ArrayLike = 1.0,
    move: Move = Static,
) -> Fleet:
    """Draw a fleet: kinds, speeds, memories, places and what depends on places.

    Every draw is keyed by the device's number, so device n is the same whatever the size of the
    fleet.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    devices : int
        Number of devices N, at least 1.
    kinds : DevicePreset or sequence of K DevicePreset
        Kinds of devices, which give the medians.
    compute_spread_sigma, memory_spread_sigma : float
        Standard deviations of the natural logarithms of speed and memory, >= 0. Training
        latency over 978 phones has sigma 0.78. The spread of speed is one of the whole step: a
        device that computes twice as slowly has twice the overhead per step.
    radio : RadioParameters
        Cells and link budget.
    share : array_like, shape (K,), optional
        Shares of the kinds, in any unit; equal if not given.
    move : callable, optional
        Motion of the devices from their places at time zero on; they stay there if not given.

    Returns
    -------
    Fleet
        The devices, uniform over the ring between the smallest distance and the cell radius, or
        over the hexagons of a layout.

    Raises
    ------
    ValueError
        If there are no devices or a spread is negative.
    """
    if devices < 1:
        raise ValueError(f"devices must be at least 1, got {devices}")
    for name, sigma in (
        ("compute_spread_sigma", compute_spread_sigma),
        ("memory_spread_sigma", memory_spread_sigma),
    ):
        if not 0 <= sigma < math.inf:
            raise ValueError(f"{name} must be finite and not negative, got {sigma}")
    presets = [kinds] if isinstance(kinds, DevicePreset) else list(kinds)
    device = np.arange(devices)
    kind = draw_kinds(seed, device, np.broadcast_to(share, len(presets)))

    def median(field: str) -> NDArray[np.float64]:
        return np.array([getattr(each, field) for each in presets], dtype=np.float64)[kind]

    speed = np.exp(compute_spread_sigma * streams.normal(seed, "fleet.compute", device))
    memory = np.exp(memory_spread_sigma * streams.normal(seed, "fleet.memory", device))
    mobility = move(*_places(seed, device, radio))
    return Fleet(
        kind=kind,
        compute_flops=median("flops") * speed,
        step_overhead_s=median("step_overhead_s") / speed,
        memory_bytes=median("memory_bytes") * memory,
        compute_power_w=median("compute_power_w"),
        battery_j=median("battery_j"),
        channel=Channel(seed, radio, mobility, median("tx_power_dbm")),
    )


def _places(
    seed: int, device: NDArray[np.int64], radio: RadioParameters
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places at time zero in metres."""
    if radio.layout is not None:
        return radio.layout.draw(seed, device, radio.min_distance_m)
    inner, outer = radio.min_distance_m**2, radio.cell_radius_m**2
    distance = np.sqrt(inner + (outer - inner) * streams.uniform(seed, "fleet.radius", device))
    angle = 2 * np.pi * streams.uniform(seed, "fleet.angle", device)
    return distance * np.cos(angle), distance * np.sin(angle)
