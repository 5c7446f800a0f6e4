"""Section on the links: propagation, link budget, modem, fading, and how the bands are shared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from sim.sections.base import Decibel, NonNegative, Positive, Section, by_name
from wireless.analog import Analog
from wireless.radio import Fading, PowerControl, RadioParameters

_RADIO, _FADING, _POWER, _ANALOG = RadioParameters(), Fading(), PowerControl(), Analog()

Power = Annotated[float, Field(ge=-100, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Band = Annotated[float, Field(ge=1, le=1e12)]


class Report(Section):
    """An environment of TR 38.901 without keys of its own, or free space."""

    name: Literal["uma", "umi", "inh-open", "inh-mixed", "free-space"]
    """Urban macrocell, street canyon, open or mixed office, free space."""


class Rural(Section):
    """Rural macrocell of TR 38.901."""

    name: Literal["rma"]
    """rma"""
    street_width_m: Annotated[float, Field(ge=5, le=50)] = 20.0
    """Average street width (m)."""
    building_height_m: Annotated[float, Field(ge=5, le=50)] = 5.0
    """Average building height (m)."""


class Factory(Section):
    """Factory hall of TR 38.901: sparse or dense clutter, low or high base station."""

    name: Literal["inf-sl", "inf-dl", "inf-sh", "inf-dh"]
    """Sparse or dense clutter, base station below (l) or above (h) it."""
    clutter_density: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the floor under clutter; null for the kind's own."""
    clutter_size_m: Positive | None = None
    """Typical size of clutter (m); null for the kind's own."""
    clutter_height_m: Positive | None = None
    """Effective height of clutter (m); null for the kind's own."""
    ceiling_height_m: Positive | None = None
    """Height of the hall (m); null for the kind's own."""


class LogDistance(Section):
    """Path loss that is a straight line in the logarithm of the distance."""

    name: Literal["log-distance"]
    """log-distance"""
    intercept_db: Annotated[float, Field(ge=0, le=300)] = 128.1
    """Loss at the reference distance (dB)."""
    reference_distance_m: Positive = 1000.0
    """Reference distance (m)."""
    exponent: Annotated[float, Field(ge=1, le=10)] = 3.76
    """Path loss exponent: the loss grows by ten times this per decade (dB)."""
    std_db: Decibel = 8.0
    """Standard deviation of shadowing (dB)."""
    decorrelation_m: Positive = 50.0
    """Distance over which the correlation of shadowing falls to 1/e (m)."""


class Shannon(Section):
    """Shannon's rate at an SNR some decibels worse."""

    name: Literal["shannon"]
    """shannon"""
    gap_db: Decibel = 1.73
    """Gap to the Shannon rate (dB)."""


class FittedNr(Section):
    """Curve fitted to NR with 64QAM: 0.9 min(5.55, 0.90 log2(1 + SNR / 1.114)) bit/s/Hz."""

    name: Literal["fitted-nr"] = "fitted-nr"
    """fitted-nr"""


class LinkAdaptation(Section):
    """The best entry of a table of TS 38.214 that meets a block error rate."""

    name: Literal["link-adaptation"]
    """link-adaptation"""
    table: Literal["mcs-64qam", "cqi-64qam"] = "mcs-64qam"
    """Table of modulation and coding schemes."""
    block_error: Annotated[float, Field(ge=0.001, le=0.5)] = 0.1
    """Block error rate that is aimed at; blocks in error are lost rate."""


class Ergodic(Section):
    """Mean rates over fading."""

    name: Literal["ergodic"] = "ergodic"
    """ergodic"""
    rician: bool = _FADING.rician
    """Whether the line of sight counts; false is Rayleigh fading for all."""


class PerRound(Section):
    """The fading at a round's start holds for the round, and devices in outage drop out."""

    name: Literal["per-round"]
    """per-round"""
    rician: bool = _FADING.rician
    """Whether the line of sight counts; false is Rayleigh fading for all."""
    outage_snr_db: Annotated[float, Field(ge=-100, le=100)] = _FADING.outage_snr_db
    """A device whose SNR over the whole band is lower drops out of the round (dB)."""
    speed_m_s: Annotated[float, Field(gt=0, le=500)] = _FADING.speed_m_s
    """Speed that the Doppler shift is reckoned with (m/s)."""


class Block(Section):
    """The fading at the start of a block of time holds for the block; the band is divided anew."""

    name: Literal["block"]
    """block"""
    rician: bool = _FADING.rician
    """Whether the line of sight counts; false is Rayleigh fading for all."""
    block_s: Positive = _FADING.block_s
    """Length of a block (s)."""
    speed_m_s: Annotated[float, Field(gt=0, le=500)] = _FADING.speed_m_s
    """Speed that the Doppler shift is reckoned with (m/s)."""


class Constant(Section):
    """A channel that does not fade."""

    name: Literal["none"]
    """none"""


class Digital(Section):
    """Bits of each device on its own, over the part of the band that it is given."""

    name: Literal["digital"] = "digital"
    """digital"""


class AnalogChoice(Section):
    """Over-the-air aggregation: all send at once, and the channel adds up what they send."""

    name: Literal["analog"]
    """analog"""
    threshold: Annotated[float, Field(gt=0, le=1)] = _ANALOG.threshold
    """Least fading power relative to its mean at which a device sends; with less it is silent for
    the round."""


class PowerControlChoice(Section):
    """Open-loop uplink power control of TS 38.213: P0 + alpha path loss in 180 kHz."""

    p0_dbm: Power = _POWER.p0_dbm
    """Power wanted at the base station in 180 kHz (dBm)."""
    alpha: Share = _POWER.alpha
    """Share of the path loss that is compensated."""


class Cells(Section):
    """Hexagonal cells, each with the bands of the section; devices join the strongest."""

    rings: Annotated[int, Field(ge=1, le=2)] = 1
    """Rings around the central cell: 1 for 7 cells, 2 for 19."""
    inter_site_m: Positive = 500.0
    """Distance between neighbouring base stations (m)."""
    wrap: bool = True
    """Whether the plane wraps around, so that no cell lies at an edge."""
    load: Share = 1.0
    """Share of time and band in which the other cells send."""
    senders: NonNegative = 1.0
    """Mean number of devices that send at once in such a cell."""


class Trace(Section):
    """A CSV file of values over time; see docs/traces.md."""

    file: Annotated[str, Field(min_length=1)]
    """File, its path taken from the working directory."""
    period_s: Positive | None = None
    """The trace starts again after this time (s); null for never."""


class Radio(Section):
    """The cell or cells: an uplink shared by the devices of a round, and a downlink."""

    environment: Annotated[Report | Rural | Factory | LogDistance, Field(discriminator="name")] = (
        Report(name="uma")
    )
    """Path loss, line of sight and shadowing: uma, umi, rma, inh-open, inh-mixed, inf-sl, inf-dl,
    inf-sh, inf-dh (TR 38.901), log-distance or free-space."""
    bandwidth_hz: Band = _RADIO.bandwidth_hz
    """Uplink band shared by the devices of a round (Hz)."""
    downlink_bandwidth_hz: Band = _RADIO.downlink_bandwidth_hz
    """Downlink band (Hz)."""
    carrier_hz: Positive = _RADIO.carrier_hz
    """Carrier frequency, within the environment's range (Hz)."""
    cell_radius_m: Positive = _RADIO.cell_radius_m
    """Radius of the one cell, within the environment's range (m)."""
    cells: Cells | None = None
    """Several cells with interference: {rings, inter_site_m, wrap, load, senders}; null for one."""
    min_distance_m: Positive = _RADIO.min_distance_m
    """No device is closer to its base station, within the environment's range (m)."""
    bs_height_m: Positive | None = None
    """Height of the base station's antenna (m); null for the environment's."""
    device_height_m: Positive | None = None
    """Height of the devices (m); null for the environment's."""
    bs_power_dbm: Power = _RADIO.bs_power_dbm
    """Transmit power of the base station (dBm)."""
    bs_antenna_gain_db: Power = _RADIO.bs_antenna_gain_db
    """Antenna gain at the base station (dB)."""
    device_antenna_gain_db: Power = _RADIO.ut_antenna_gain_db
    """Antenna gain at a device (dB)."""
    bs_noise_figure_db: Decibel = _RADIO.bs_noise_figure_db
    """Noise figure of the base station (dB)."""
    device_noise_figure_db: Decibel = _RADIO.ut_noise_figure_db
    """Noise figure of a device (dB)."""
    extra_loss_db: Decibel = _RADIO.extra_loss_db
    """Further loss on every link (dB)."""
    indoor_share: Share = _RADIO.indoor_share
    """Share of the devices behind walls."""
    building: Literal["low-loss", "high-loss"] = _RADIO.building
    """Their walls, by TR 38.901."""
    modulation: Annotated[Shannon | FittedNr | LinkAdaptation, Field(discriminator="name")] = (
        FittedNr()
    )
    """What an SNR buys: shannon, fitted-nr or link-adaptation; the last two less NR's overhead."""
    fading: Annotated[Ergodic | PerRound | Block | Constant, Field(discriminator="name")] = (
        Ergodic()
    )
    """ergodic: mean rates over fading, Rician in line of sight, else Rayleigh; per-round: the
    fading at a round's start holds for the round; block: it changes with every block of time; none:
    a constant channel."""
    power_control: PowerControlChoice | None = None
    """Open-loop power control: {p0_dbm, alpha}; null for full power."""
    uplink_share: Annotated[float, Field(ge=0.01, le=1)] = _RADIO.uplink_share
    """Share of the time that the uplink has: 1 for frequency-division duplex, less for
    time-division duplex, in which the downlink has the rest."""
    uplink: Annotated[Digital | AnalogChoice, Field(discriminator="name")] = Digital()
    """digital: each device's bits on their own; analog: one sum over the air, see docs/radio.md."""
    allocation: Literal[
        "equal-finish", "work-conserving", "equal-split", "proportional", "time-division"
    ] = "equal-finish"
    """How the uplink band is divided: once, so that everybody ends together; the same, again at
    every event; evenly among those who send; in proportion to what they send; one at a time."""
    block_hz: Positive | None = None
    """Width of a resource block of which everybody gets whole numbers (Hz); null to divide
    freely."""
    reallocation_s: NonNegative = 0.0
    """Least time between two divisions of an uplink band (s); events closer than that are merged.
    Of no effect under equal-finish, whose divisions nothing changes."""
    downlink: Literal["broadcast", "unicast"] = "broadcast"
    """Everything to everybody at the worst receiver's rate, or to each device of the round in turn
    what it needs at its own."""
    bandwidth_trace: Trace | None = None
    """Uplink band over time, in the place of bandwidth_hz: a CSV file, or {file, period_s}; it
    changes in the middle of uploads, too; see docs/traces.md."""

    @field_validator("environment", "modulation", "fading", "uplink", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return by_name(value)

    @field_validator("bandwidth_trace", mode="before")
    @classmethod
    def _by_file(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value
