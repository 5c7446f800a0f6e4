"""Section on who takes part: devices, their motion, and when they are there."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from sim.sections.base import Count, NonNegative, Positive, Section, by_name
from sim.sections.radio import Trace


class Device(Section):
    """A kind of device, as `sim calibrate` writes it."""

    name: Annotated[str, Field(min_length=1)]
    """Name of the device."""
    flops: Annotated[float, Field(ge=1, le=1e18)] | None = None
    """Effective speed of LoRA training, as opposed to the peak (FLOP/s); or give tokens_per_s."""
    tokens_per_s: Annotated[float, Field(gt=0, le=1e12)] | None = None
    """Tokens trained per second on this scenario's model at full rank, measured (1/s)."""
    step_overhead_s: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Fixed time of one local step beside its arithmetic (s)."""
    memory_bytes: Annotated[float, Field(ge=1, le=1e18)]
    """Memory that training may use (bytes)."""
    compute_power_w: Annotated[float, Field(ge=0, le=1e6)]
    """Power drawn while training (W)."""
    tx_power_dbm: Annotated[float, Field(ge=-100, le=100)] = 23.0
    """Maximum transmit power; 23 is power class 3 of TS 38.101-1 (dBm)."""
    battery_wh: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Energy of a full battery (Wh); null for mains."""
    source: str = "not stated"
    """Where the figures come from."""

    @model_validator(mode="after")
    def _one_speed(self) -> Self:
        if (self.flops is None) == (self.tokens_per_s is None):
            raise ValueError("flops: give flops or tokens_per_s, and only one of them")
        return self


#: Endings of device files; a preset's name has none of them.
DEVICE_FILES = (".yaml", ".yml")


def _form(preset: object) -> str | None:
    """Which of its forms a device preset is given in."""
    if isinstance(preset, str):
        return "by name"
    if isinstance(preset, list):
        return "as mixture"
    return "as mapping" if isinstance(preset, dict | Device) else None


_Named = Annotated[str, Tag("by name")]
_Given = Annotated[Device, Tag("as mapping")]


class Part(Section):
    """A kind of device and its share of the fleet."""

    preset: Annotated[
        _Named | _Given,
        Discriminator(
            _form,
            custom_error_type="preset_form",
            custom_error_message="Input should be a name of `sim list devices`, a .yaml file of "
            "`sim calibrate`, or its keys and values",
        ),
    ]
    """As fleet.preset."""
    share: Positive = 1.0
    """Share of the devices; shares are divided by their sum."""


class Throttle(Section):
    """A device that heats up: after a while of training it goes on at a share of its speed."""

    after_s: NonNegative
    """Time at full speed (s)."""
    share: Annotated[float, Field(gt=0, le=1)]
    """Share of the speed afterwards."""


class Always(Section):
    """Every device at every time."""

    name: Literal["always"] = "always"
    """always"""


class Markov(Section):
    """Devices that come and go: exponential times on and off."""

    name: Literal["markov"]
    """markov"""
    mean_on_s: Positive
    """Mean time that a device stays (s)."""
    mean_off_s: Positive
    """Mean time that it is away (s)."""


class Diurnal(Section):
    """Devices that are there once a day, such as at night while they charge."""

    name: Literal["diurnal"]
    """diurnal"""
    on_hours: Annotated[float, Field(gt=0, lt=24)] = 8.0
    """Median time a day (h)."""
    on_sigma: Annotated[float, Field(ge=0, le=10)] = 0.3
    """Its spread over devices: standard deviation of its natural logarithm."""
    middle_hour: Annotated[float, Field(ge=0, lt=24)] = 3.0
    """Mean middle of that time, in hours after the start of the run (h)."""
    middle_std_hours: Annotated[float, Field(ge=0, le=24)] = 5.2
    """Its standard deviation over devices (h)."""
    jitter_hours: Annotated[float, Field(ge=0, lt=12)] = 0.5
    """Largest shift of that time as a whole from day to day (h)."""

    @model_validator(mode="after")
    def _fits_into_a_day(self) -> Self:
        most = 24 - 2 * self.jitter_hours
        if self.on_hours > most:
            raise ValueError(
                f"on_hours = {self.on_hours:g}: at most 24 - 2 jitter_hours = {most:g}"
            )
        return self


class TraceOfPresence(Section):
    """Presence read from a CSV file `time_s,device,available`; see docs/traces.md."""

    name: Literal["trace"]
    """trace"""
    file: Annotated[str, Field(min_length=1)]
    """File, its path taken from the working directory."""
    period_s: Positive
    """The trace starts again after this time (s); each device's share of it is what its
    aggregation weight is divided by."""


class Still(Section):
    """Devices that stay where they are."""

    name: Literal["static"] = "static"
    """static"""


class Straight(Section):
    """Devices that walk to and fro on a line."""

    name: Literal["linear"]
    """linear"""
    speed_m_s: Annotated[float, Field(ge=0, le=500)] = 1.0
    """Speed (m/s)."""


class Wander(Section):
    """Devices that walk from one random place of the cell to the next."""

    name: Literal["random-waypoint"]
    """random-waypoint"""
    low_m_s: Annotated[float, Field(gt=0, le=500)] = 0.5
    """Slowest speed of a leg (m/s)."""
    high_m_s: Annotated[float, Field(gt=0, le=500)] = 1.5
    """Fastest speed of a leg (m/s)."""
    pause_s: NonNegative = 0.0
    """Rest after each leg (s)."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.high_m_s < self.low_m_s:
            raise ValueError(f"high_m_s = {self.high_m_s:g}: at least low_m_s = {self.low_m_s:g}")
        return self


class TraceOfPlaces(Section):
    """Places read from a CSV file `time_s,device,x_m,y_m`."""

    name: Literal["trace"]
    """trace"""
    file: Annotated[str, Field(min_length=1)]
    """File, its path taken from the working directory."""


class FleetChoice(Section):
    """The devices."""

    devices: Count = 30
    """Number of devices N."""
    preset: Annotated[
        _Named | _Given | Annotated[list[Part], Field(min_length=1), Tag("as mixture")],
        Discriminator(
            _form,
            custom_error_type="preset_form",
            custom_error_message="Input should be a name of `sim list devices`, a .yaml file of "
            "`sim calibrate`, its keys and values, or a list of such presets with their shares",
        ),
    ] = "phone-snapdragon-778g"
    """The median device: a name of `sim list devices`; a .yaml file as `sim calibrate` writes it,
    its path taken from the scenario's folder; the keys of such a file, which the resolved
    scenario holds in its place; or a list of {preset, share} for a mixture of kinds."""
    compute_sigma: Annotated[float, Field(ge=0, le=10)] = 0.78
    """Spread of compute speed: standard deviation of its natural logarithm; a device twice as slow
    has twice the overhead per step."""
    memory_sigma: Annotated[float, Field(ge=0, le=10)] = 0.3
    """Spread of memory, likewise."""
    jitter_sigma: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Spread of compute time from round to round, likewise; its mean is one."""
    throttle: Throttle | None = None
    """Heating: {after_s, share} for a device that, after so long a time of training (s), goes on at
    a share of its speed; null for a constant speed."""
    compute_trace: Trace | None = None
    """Factor on the speed of devices over time: a CSV file, or {file, period_s}; see
    docs/traces.md."""
    rank_caps: Annotated[list[Count], Field(min_length=1)] | None = None
    """Largest ranks of the devices in turn, such as [2, 4, 8, 16]; null for what fits into memory,
    which binds in any case."""
    battery: bool = False
    """Whether a device without charge left takes part no more; full at the start."""
    availability: Annotated[
        Always | Markov | Diurnal | TraceOfPresence, Field(discriminator="name")
    ] = Always()
    """When devices are there: always, markov, diurnal or trace. Who is there at the start of a
    round stays to its end, without failures.departures."""
    mobility: Annotated[Still | Straight | Wander | TraceOfPlaces, Field(discriminator="name")] = (
        Still()
    )
    """How devices move: static, linear, random-waypoint or trace."""

    @field_validator("availability", "mobility", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return by_name(value)

    @field_validator("compute_trace", mode="before")
    @classmethod
    def _by_file(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value
