"""A fleet of devices in one cell: places, speeds, memories and link budgets."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wireless import streams
from wireless.devices import DevicePreset
from wireless.link import ErgodicRayleighLink, Link, PowerLimitedLink
from wireless.pathloss import uma_los_probability, uma_path_loss_db, uma_shadowing_std_db


@dataclass(frozen=True, slots=True)
class RadioParameters:
    """One urban-macrocell cell and its link budget.

    Parameters
    ----------
    bandwidth_hz : float
        Uplink band shared by the cohort, in Hz, > 0.
    downlink_bandwidth_hz : float
        Downlink band in Hz, > 0.
    carrier_hz : float
        Carrier frequency, 0.5e9 to 100e9 Hz (the range of TR 38.901).
    cell_radius_m : float
        Largest horizontal distance of a device, in metres, at most 5000 (TR 38.901).
    min_distance_m : float
        Smallest horizontal distance, from 10 m up (TR 38.901) and below the radius; the report
        drops devices from 35 m on (table 7.2-1).
    bs_height_m, ut_height_m : float
        Antenna heights of the base station and of the devices, in metres; the latter from 1.5
        to 22.5.
    bs_power_dbm : float
        Transmit power of the base station in dBm.
    noise_density_dbm_hz : float
        Thermal noise density in dBm/Hz; the default is kT at 290 K.
    bs_noise_figure_db, ut_noise_figure_db : float
        Noise figures of the receivers in dB, >= 0.
    bs_antenna_gain_db : float
        Gain of the base station's antenna in dBi, counted in both directions; the devices have
        0 dBi. The default is the peak element gain of TR 38.901, table 7.3-1.
    extra_loss_db : float
        Further losses such as building penetration, in dB, >= 0; zero is outdoors.
    snr_gap_db : float
        Distance of the modem to the Shannon capacity in dB, >= 0.
    fading : {"rayleigh", "none"}
        Whether rates are ergodic means over Rayleigh fading or those of a static channel.

    Raises
    ------
    ValueError
        If a value is outside its range; the message names the field.
    """

    bandwidth_hz: float = 1e6
    downlink_bandwidth_hz: float = 5e6
    carrier_hz: float = 3.5e9
    cell_radius_m: float = 500.0
    min_distance_m: float = 35.0
    bs_height_m: float = 25.0
    ut_height_m: float = 1.5
    bs_power_dbm: float = 43.0
    noise_density_dbm_hz: float = -173.98
    bs_noise_figure_db: float = 5.0
    ut_noise_figure_db: float = 9.0
    bs_antenna_gain_db: float = 8.0
    extra_loss_db: float = 0.0
    snr_gap_db: float = 1.73
    fading: Literal["none", "rayleigh"] = "rayleigh"

    def __post_init__(self) -> None:
        """Check every range."""
        ranges = {
            "bandwidth_hz": (1.0, math.inf),
            "downlink_bandwidth_hz": (1.0, math.inf),
            "carrier_hz": (0.5e9, 100e9),
            "cell_radius_m": (10.0, 5000.0),
            "min_distance_m": (10.0, 5000.0),
            "bs_height_m": (10.0, 150.0),
            "ut_height_m": (1.5, 22.5),
            "bs_power_dbm": (-math.inf, math.inf),
            "noise_density_dbm_hz": (-math.inf, math.inf),
            "bs_noise_figure_db": (0.0, math.inf),
            "ut_noise_figure_db": (0.0, math.inf),
            "bs_antenna_gain_db": (-math.inf, math.inf),
            "extra_loss_db": (0.0, math.inf),
            "snr_gap_db": (0.0, math.inf),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not (low <= value <= high and math.isfinite(value)):
                raise ValueError(f"{name} must be finite, from {low:g} to {high:g}, got {value}")
        if not self.min_distance_m < self.cell_radius_m:
            raise ValueError(
                f"min_distance_m must be below cell_radius_m = {self.cell_radius_m}, "
                f"got {self.min_distance_m}"
            )
        if self.fading not in ("none", "rayleigh"):
            raise ValueError(f"fading must be 'none' or 'rayleigh', got {self.fading!r}")


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """N devices of one cell.

    Parameters
    ----------
    x_m, y_m : ndarray, shape (N,)
        Positions in metres, the base station at the origin.
    distance_m : ndarray, shape (N,)
        Horizontal distances to the base station in metres.
    los : ndarray of bool, shape (N,)
        Whether the device is in line of sight.
    path_loss_db : ndarray, shape (N,)
        Mean path losses in dB, without shadowing.
    shadowing_db : ndarray, shape (N,)
        Shadowing in dB, added to the path loss.
    compute_flops : ndarray, shape (N,)
        Effective training speeds in FLOP/s.
    step_overhead_s : ndarray, shape (N,)
        Fixed times of one local step beside its arithmetic, in seconds.
    memory_bytes : ndarray, shape (N,)
        Memory that training may use.
    compute_power_w : ndarray, shape (N,)
        Powers drawn while training, in watts.
    tx_power_dbm : ndarray, shape (N,)
        Transmit powers in dBm.
    uplink : Link
        Uplinks of the N devices.
    snr_db : ndarray, shape (N,)
        Mean uplink SNR with the power spread over the whole band, before the SNR gap.
    downlink_snr_db : ndarray, shape (N,)
        Mean downlink SNR over the whole downlink band, before the SNR gap.
    """

    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    distance_m: NDArray[np.float64]
    los: NDArray[np.bool_]
    path_loss_db: NDArray[np.float64]
    shadowing_db: NDArray[np.float64]
    compute_flops: NDArray[np.float64]
    step_overhead_s: NDArray[np.float64]
    memory_bytes: NDArray[np.float64]
    compute_power_w: NDArray[np.float64]
    tx_power_dbm: NDArray[np.float64]
    uplink: Link
    snr_db: NDArray[np.float64]
    downlink_snr_db: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of devices N."""
        return len(self.distance_m)


def _link(snr_db: NDArray[np.float64], bandwidth_hz: float, radio: RadioParameters) -> Link:
    """Return the links whose mean SNR over a band is given: a = B snr / gap."""
    snr_bandwidth_hz = bandwidth_hz * 10 ** ((snr_db - radio.snr_gap_db) / 10)
    if radio.fading == "rayleigh":
        return ErgodicRayleighLink(snr_bandwidth_hz)
    return PowerLimitedLink(snr_bandwidth_hz)


def draw_fleet(
    seed: int,
    devices: int,
    preset: DevicePreset,
    compute_spread_sigma: float,
    memory_spread_sigma: float,
    radio: RadioParameters,
) -> Fleet:
    """Draw a fleet: places, line of sight, shadowing, speeds and memories.

    Every draw is keyed by the device's number, so device n is the same whatever the size of the
    fleet.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    devices : int
        Number of devices N, at least 1.
    preset : DevicePreset
        Kind of device, which gives the medians.
    compute_spread_sigma, memory_spread_sigma : float
        Standard deviations of the natural logarithms of speed and memory, >= 0. Training
        latency over 978 phones has sigma 0.78. The spread of speed is one of the whole step: a
        device that computes twice as slowly has twice the overhead per step.
    radio : RadioParameters
        Cell and link budget.

    Returns
    -------
    Fleet
        The devices, uniform over the ring between the smallest distance and the cell radius.

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
    device = np.arange(devices)

    inner, outer = radio.min_distance_m**2, radio.cell_radius_m**2
    distance = np.sqrt(inner + (outer - inner) * streams.uniform(seed, "fleet.radius", device))
    angle = 2 * np.pi * streams.uniform(seed, "fleet.angle", device)
    los_probability = uma_los_probability(distance, radio.ut_height_m)
    los = streams.uniform(seed, "fleet.los", device) < los_probability
    path_loss = uma_path_loss_db(
        distance, radio.carrier_hz, radio.bs_height_m, radio.ut_height_m, los
    )
    shadowing = uma_shadowing_std_db(los) * streams.normal(seed, "fleet.shadowing", device)
    compute = np.exp(compute_spread_sigma * streams.normal(seed, "fleet.compute", device))
    memory = np.exp(memory_spread_sigma * streams.normal(seed, "fleet.memory", device))

    tx_power = np.full(devices, preset.tx_power_dbm)
    gain_db = radio.bs_antenna_gain_db - path_loss - shadowing - radio.extra_loss_db
    noise_dbm = radio.noise_density_dbm_hz + 10 * math.log10(radio.bandwidth_hz)
    downlink_noise_dbm = radio.noise_density_dbm_hz + 10 * math.log10(radio.downlink_bandwidth_hz)
    snr = tx_power + gain_db - noise_dbm - radio.bs_noise_figure_db
    return Fleet(
        x_m=distance * np.cos(angle),
        y_m=distance * np.sin(angle),
        distance_m=distance,
        los=los,
        path_loss_db=path_loss,
        shadowing_db=shadowing,
        compute_flops=preset.flops * compute,
        step_overhead_s=preset.step_overhead_s / compute,
        memory_bytes=preset.memory_bytes * memory,
        compute_power_w=np.full(devices, preset.compute_power_w),
        tx_power_dbm=tx_power,
        uplink=_link(snr, radio.bandwidth_hz, radio),
        snr_db=snr,
        downlink_snr_db=(
            radio.bs_power_dbm + gain_db - downlink_noise_dbm - radio.ut_noise_figure_db
        ),
    )


def broadcast_rate_bps(fleet: Fleet, radio: RadioParameters) -> float:
    """Return the rate of one transmission over the whole downlink band that everybody decodes.

    Parameters
    ----------
    fleet : Fleet
        The receivers.
    radio : RadioParameters
        The cell that the fleet was drawn for.

    Returns
    -------
    float
        Rate of the worst receiver in bit/s, ergodic if the cell fades.
    """
    worst = fleet.downlink_snr_db.min(keepdims=True)
    band = radio.downlink_bandwidth_hz
    return float(_link(worst, band, radio).rate(band).item())
