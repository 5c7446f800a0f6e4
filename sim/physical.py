"""From the scenario's sections to the physical world: fleet, links, presence, traces."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sim.errors import InputError
from sim.scenario import Scenario
from sim.sections import fleet as chosen
from sim.sections import radio as links
from sim.sections.base import NUMBER_BITS
from wireless.analog import Analog
from wireless.availability import AlwaysOn, Availability, Diurnal, Markov, TraceAvailability
from wireless.compute import speed_from_tokens
from wireless.devices import PRESETS, DevicePreset
from wireless.efficiency import Efficiency, FittedNr, LinkAdaptation, Shannon
from wireless.fleet import Fleet, Move, draw_fleet
from wireless.layout import Layout
from wireless.mobility import Linear, RandomWaypoint, Static
from wireless.nr import whole_blocks
from wireless.propagation import ENVIRONMENTS
from wireless.radio import Fading, PowerControl, RadioParameters
from wireless.spectrum import RULES, OverTheAir, Rule
from wireless.spectrum.rule import Whole
from wireless.trace_files import (
    read_availability_trace,
    read_bandwidth_trace,
    read_compute_trace,
    read_position_trace,
)
from wireless.traces import StepTrace

_HOUR_S = 3600.0
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class World:
    """What is physically given, whatever is decided.

    Parameters
    ----------
    fleet, kinds
        The devices and their links, and the names of their kinds.
    availability
        When they are there.
    rule, whole
        How the uplink band is divided, and rounded to whole resource blocks, if it is.
    band
        Uplink band over time, if not constant.
    speed
        Factor on the speed of devices over time, if any.
    """

    fleet: Fleet
    kinds: tuple[str, ...]
    availability: Availability
    rule: Rule
    whole: Whole | None
    band: StepTrace | None
    speed: StepTrace | None


def build_world(scenario: Scenario, flops_per_token: float) -> World:
    """Draw the fleet and read the traces.

    Parameters
    ----------
    scenario
        The choices.
    flops_per_token
        Arithmetic of training on one token at full rank, for devices whose speed is given in
        tokens.

    Raises
    ------
    InputError
        If the radio's values do not fit together, or a trace cannot be read.
    """
    radio, choice = radio_parameters(scenario), scenario.fleet
    kinds, share = _kinds(choice, flops_per_token)
    try:
        fleet = draw_fleet(
            scenario.seed,
            choice.devices,
            kinds,
            choice.compute_sigma,
            choice.memory_sigma,
            radio,
            share,
            _move(scenario, radio),
        )
    except ValueError as error:
        raise InputError(f"radio.{error}") from None
    block_hz = scenario.radio.block_hz
    return World(
        fleet,
        tuple(kind.name for kind in kinds),
        _availability(scenario),
        OverTheAir() if radio.analog is not None else RULES[scenario.radio.allocation],
        None if block_hz is None else partial(whole_blocks, block_hz=block_hz),
        _steps("radio.bandwidth_trace", scenario.radio.bandwidth_trace, read_bandwidth_trace),
        _steps("fleet.compute_trace", choice.compute_trace, read_compute_trace),
    )


def radio_parameters(scenario: Scenario) -> RadioParameters:
    """The radio section as the wireless package takes it.

    Raises
    ------
    InputError
        If a value is outside the environment's range.
    """
    radio = scenario.radio
    cells = radio.cells
    control = radio.power_control
    environment = _refused("radio.environment", lambda: _environment(radio.environment))
    modem = _refused("radio.modulation", lambda: _efficiency(radio.modulation))
    try:
        return RadioParameters(
            environment=environment,
            bandwidth_hz=radio.bandwidth_hz,
            downlink_bandwidth_hz=radio.downlink_bandwidth_hz,
            carrier_hz=radio.carrier_hz,
            cell_radius_m=radio.cell_radius_m,
            min_distance_m=radio.min_distance_m,
            bs_height_m=radio.bs_height_m,
            ut_height_m=radio.device_height_m,
            bs_power_dbm=radio.bs_power_dbm,
            bs_noise_figure_db=radio.bs_noise_figure_db,
            ut_noise_figure_db=radio.device_noise_figure_db,
            bs_antenna_gain_db=radio.bs_antenna_gain_db,
            ut_antenna_gain_db=radio.device_antenna_gain_db,
            extra_loss_db=radio.extra_loss_db,
            indoor_share=radio.indoor_share,
            building=radio.building,
            efficiency=modem,
            fading=_fading(radio.fading),
            uplink_share=radio.uplink_share,
            power_control=None if control is None else PowerControl(**control.model_dump()),
            block_hz=radio.block_hz,
            layout=(None if cells is None else Layout(cells.rings, cells.inter_site_m, cells.wrap)),
            load=1.0 if cells is None else cells.load,
            senders=1.0 if cells is None else cells.senders,
            analog=_analog(scenario),
        )
    except ValueError as error:
        message = str(error)
        # The scenario says device where the standard says user terminal.
        names = (("ut_", "device_"), ("inter_site_m", "cells.inter_site_m"))
        for standard, key in names:
            message = message.replace(standard, key)
        raise InputError(f"radio.{message}") from None


def _refused(key: str, make: Callable[[], _Read]) -> _Read:
    """What is made, or its refusal under the key's path."""
    try:
        return make()
    except ValueError as error:
        raise InputError(f"{key}.{error}") from None


def _environment(choice: Any) -> Any:
    given = choice.model_dump(exclude={"name"}, exclude_none=True)
    return ENVIRONMENTS[choice.name](**given)


def _fading(choice: Any) -> Fading:
    given = choice.model_dump()
    return Fading(given.pop("name"), **given)


def _analog(scenario: Scenario) -> Analog | None:
    uplink = scenario.radio.uplink
    if not isinstance(uplink, links.AnalogChoice):
        return None
    return Analog(uplink.threshold, NUMBER_BITS[scenario.method.number_format])


def _efficiency(choice: Any) -> Efficiency:
    if isinstance(choice, links.Shannon):
        return Shannon(choice.gap_db)
    if isinstance(choice, links.FittedNr):
        return FittedNr()
    return LinkAdaptation(choice.table, choice.block_error)


def _kinds(
    choice: chosen.FleetChoice, flops_per_token: float
) -> tuple[list[DevicePreset], list[float]]:
    """Kinds of devices and their shares."""
    given = choice.preset
    parts = given if isinstance(given, list) else [chosen.Part(preset=given)]
    kinds = [device_of(part.preset, flops_per_token) for part in parts]
    return kinds, [part.share for part in parts]


def device_of(choice: str | chosen.Device, flops_per_token: float) -> DevicePreset:
    """A kind of device, by name or as given."""
    if isinstance(choice, str):
        return PRESETS[choice]
    given = choice.model_dump(exclude={"tokens_per_s"})
    if choice.tokens_per_s is not None:
        given["flops"] = float(speed_from_tokens(choice.tokens_per_s, flops_per_token))
    return DevicePreset(**given)


def _availability(scenario: Scenario) -> Availability:
    choice, seed = scenario.fleet.availability, scenario.seed
    if isinstance(choice, chosen.Markov):
        return Markov(seed, choice.mean_on_s, choice.mean_off_s)
    if isinstance(choice, chosen.Diurnal):
        return Diurnal(
            seed,
            choice.on_hours * _HOUR_S,
            choice.on_sigma,
            choice.middle_hour * _HOUR_S,
            choice.middle_std_hours * _HOUR_S,
            choice.jitter_hours * _HOUR_S,
        )
    if isinstance(choice, chosen.TraceOfPresence):
        trace = _steps("fleet.availability.file", choice, read_availability_trace)
        assert trace is not None
        return TraceAvailability(trace)
    return AlwaysOn()


def _move(scenario: Scenario, radio: RadioParameters) -> Move:
    choice, seed = scenario.fleet.mobility, scenario.seed
    if isinstance(choice, chosen.Straight):
        return lambda x, y: Linear(seed, x, y, _roam_m(radio), choice.speed_m_s)
    if isinstance(choice, chosen.Wander):
        return lambda x, y: RandomWaypoint(
            seed,
            x,
            y,
            radio.min_distance_m,
            _roam_m(radio),
            choice.low_m_s,
            choice.high_m_s,
            choice.pause_s,
        )
    if isinstance(choice, chosen.TraceOfPlaces):
        trace = _read("fleet.mobility.file", choice.file, read_position_trace)
        return lambda _x, _y: trace
    return Static


def _roam_m(radio: RadioParameters) -> float:
    """Radius of the disc that devices walk in: the cell, or one around all cells."""
    if radio.layout is None:
        return radio.cell_radius_m
    return radio.layout.inter_site_m * (radio.layout.rings + 1)


def _steps(
    key: str,
    trace: links.Trace | chosen.TraceOfPresence | None,
    read: Callable[[str, float], StepTrace],
) -> StepTrace | None:
    if trace is None:
        return None
    period_s = math.inf if trace.period_s is None else trace.period_s
    return _read(key, trace.file, lambda file: read(file, period_s))


def _read(key: str, file: str, read: Callable[[str], _Read]) -> _Read:
    try:
        return read(file)
    except FileNotFoundError:
        raise InputError(f"{key} = '{file}': no such file; give its path from here") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{key} = '{file}': {error}") from None
