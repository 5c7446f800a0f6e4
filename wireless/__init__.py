"""The physical world of a fleet: radio link, spectrum, compute speed, energy.

Pure numpy and scipy, vectorised over devices; knows nothing of training, policies or events.

======== ==================================================================
module   what it holds
======== ==================================================================
streams  named random streams, a pure function of (seed, purpose, counters)
link     rate of a bandwidth and bandwidth of a rate, per device
spectrum equal-finish sharing of one uplink band
pathloss path loss, line of sight and shadowing of 3GPP TR 38.901
devices  presets of training speed, memory and power
compute  time of local training, and the fit of a device's speed to measured times
fleet    a fleet drawn in one cell, with its link budget
energy   energy of computing and of sending
======== ==================================================================
"""

from wireless.compute import ComputeFit, compute_time_s, fit_compute
from wireless.devices import PRESETS, DevicePreset, preset
from wireless.fleet import Fleet, RadioParameters, broadcast_rate_bps, draw_fleet
from wireless.link import ErgodicRayleighLink, LinearLink, Link, PowerLimitedLink
from wireless.spectrum import Allocation, equal_finish, equal_finish_time, solo_finish_time

__all__ = [
    "PRESETS",
    "Allocation",
    "ComputeFit",
    "DevicePreset",
    "ErgodicRayleighLink",
    "Fleet",
    "LinearLink",
    "Link",
    "PowerLimitedLink",
    "RadioParameters",
    "broadcast_rate_bps",
    "compute_time_s",
    "draw_fleet",
    "equal_finish",
    "equal_finish_time",
    "fit_compute",
    "preset",
    "solo_finish_time",
]
