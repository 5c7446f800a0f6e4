"""Sections on who takes part and over which links: fleet and radio."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from sim.sections.base import (
    Count,
    Decibel,
    Section,
)
from wireless.fleet import RadioParameters

_RADIO = RadioParameters()


class Device(Section):
    """A kind of device, as `sim calibrate` writes it."""

    name: Annotated[str, Field(min_length=1)]
    """Name of the device."""
    flops: Annotated[float, Field(ge=1, le=1e18)]
    """Effective speed of LoRA training, as opposed to the peak (FLOP/s)."""
    step_overhead_s: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Fixed time of one local step beside its arithmetic (s)."""
    memory_bytes: Annotated[float, Field(ge=1, le=1e18)]
    """Memory that training may use (bytes)."""
    compute_power_w: Annotated[float, Field(ge=0, le=1e6)]
    """Power drawn while training (W)."""
    tx_power_dbm: Annotated[float, Field(ge=-100, le=100)] = 23.0
    """Maximum transmit power; 23 is power class 3 of TS 38.101-1 (dBm)."""
    source: str = "not stated"
    """Where the figures come from."""


#: Endings of device files; a preset's name has none of them.
DEVICE_FILES = (".yaml", ".yml")


def _form(preset: object) -> str | None:
    """Which of its forms a device preset is given in."""
    if isinstance(preset, str):
        return "by name"
    return "as mapping" if isinstance(preset, dict | Device) else None


class FleetChoice(Section):
    """The devices."""

    devices: Count = 30
    """Number of devices N."""
    preset: Annotated[
        Annotated[str, Tag("by name")] | Annotated[Device, Tag("as mapping")],
        Discriminator(
            _form,
            custom_error_type="preset_form",
            custom_error_message="Input should be a name of `sim list devices`, a .yaml file of "
            "`sim calibrate`, or its keys and values",
        ),
    ] = "phone-snapdragon-778g"
    """The median device: a name of `sim list devices`; a .yaml file as `sim calibrate` writes it,
    its path taken from the scenario's folder; or the keys of such a file, which the resolved
    scenario holds in its place."""
    compute_sigma: Annotated[float, Field(ge=0, le=10)] = 0.78
    """Spread of compute speed: standard deviation of its natural logarithm; a device twice as slow
    has twice the overhead per step."""
    memory_sigma: Annotated[float, Field(ge=0, le=10)] = 0.3
    """Spread of memory, likewise."""
    rank_caps: Annotated[list[Count], Field(min_length=1)] | None = None
    """Largest ranks of the devices in turn, such as [2, 4, 8, 16]; null for what fits into memory,
    which binds in any case."""


class Radio(Section):
    """One cell, an uplink shared by frequency division, a broadcast downlink (TR 38.901 UMa)."""

    bandwidth_hz: Annotated[float, Field(ge=1, le=1e12)] = _RADIO.bandwidth_hz
    """Uplink band shared by the devices of a round (Hz)."""
    downlink_bandwidth_hz: Annotated[float, Field(ge=1, le=1e12)] = _RADIO.downlink_bandwidth_hz
    """Downlink band of the broadcast (Hz)."""
    carrier_hz: Annotated[float, Field(ge=0.5e9, le=100e9)] = _RADIO.carrier_hz
    """Carrier frequency, 0.5 to 100 GHz (Hz)."""
    cell_radius_m: Annotated[float, Field(gt=0, le=5000)] = _RADIO.cell_radius_m
    """Radius of the cell, at most 5 km (m)."""
    min_distance_m: Annotated[float, Field(ge=10)] = _RADIO.min_distance_m
    """No device is closer to the base station, at least 10 m (m)."""
    fading: Literal["rayleigh", "none"] = _RADIO.fading
    """rayleigh: mean rate over Rayleigh fading; none: a constant channel."""
    bs_height_m: Annotated[float, Field(ge=10, le=150)] = _RADIO.bs_height_m
    """Height of the base station's antenna (m)."""
    device_height_m: Annotated[float, Field(ge=1.5, le=22.5)] = _RADIO.ut_height_m
    """Height of the devices (m)."""
    bs_power_dbm: Annotated[float, Field(ge=-100, le=100)] = _RADIO.bs_power_dbm
    """Transmit power of the base station (dBm)."""
    bs_antenna_gain_db: Annotated[float, Field(ge=-100, le=100)] = _RADIO.bs_antenna_gain_db
    """Antenna gain at the base station (dB)."""
    bs_noise_figure_db: Decibel = _RADIO.bs_noise_figure_db
    """Noise figure of the base station (dB)."""
    device_noise_figure_db: Decibel = _RADIO.ut_noise_figure_db
    """Noise figure of a device (dB)."""
    extra_loss_db: Decibel = _RADIO.extra_loss_db
    """Further loss on every link, such as walls (dB)."""
    snr_gap_db: Decibel = _RADIO.snr_gap_db
    """Gap to the Shannon rate (dB)."""

    @model_validator(mode="after")
    def _cell(self) -> Self:
        if self.min_distance_m >= self.cell_radius_m:
            raise ValueError(
                f"min_distance_m = {self.min_distance_m:g} leaves no cell; "
                f"keep it below cell_radius_m = {self.cell_radius_m:g}"
            )
        return self
