"""The physical world of a fleet: radio link, spectrum, compute speed, energy.

Pure numpy and scipy, vectorised over devices; knows nothing of training, policies or events.

============== =================================================================
module         what it holds
============== =================================================================
streams        named random streams, a pure function of (seed, purpose, counters)
propagation    path loss, line of sight, shadowing and walls, by environment
fields         what belongs to a place and is alike nearby: shadowing, sight
fading         Rayleigh and Rician power: distribution, outage, course in time
mobility       where devices are
layout         hexagonal sites of several cells
interference   what cells and their devices do to each other
efficiency     bit/s/Hz that an SNR buys: Shannon, NR, link adaptation
link           rate of a bandwidth and bandwidth of a rate, per device
power_control  uplink power control and the links that it shapes
nr             numerology, peak rates and resource blocks of NR
spectrum       rules by which devices share one uplink band
devices        presets of training speed, memory, power and battery
compute        time of local training, and a device's speed from measured times
energy         energy of computing and of sending
battery        what is left of it
availability   when devices are there
traces         values over time, from CSV files (trace_files)
radio          the parameters of cells and links
rates          modem, fading and power control put together
channel        the links of devices at a moment
planning       what plans reckon with under fading per round
coverage       rate against distance
fleet          a fleet drawn in its cells
============== =================================================================
"""

from wireless.channel import Channel, LinkState
from wireless.compute import ComputeFit, compute_time_s, fit_compute
from wireless.devices import PRESETS, DevicePreset, preset
from wireless.fleet import Fleet, draw_fleet
from wireless.link import ErgodicRayleighLink, LinearLink, Link, PowerLimitedLink
from wireless.radio import Fading, PowerControl, RadioParameters
from wireless.spectrum import (
    RULES,
    Allocation,
    equal_finish,
    equal_finish_time,
    solo_finish_time,
)

__all__ = [
    "PRESETS",
    "RULES",
    "Allocation",
    "Channel",
    "ComputeFit",
    "DevicePreset",
    "ErgodicRayleighLink",
    "Fading",
    "Fleet",
    "LinearLink",
    "Link",
    "LinkState",
    "PowerControl",
    "PowerLimitedLink",
    "RadioParameters",
    "compute_time_s",
    "draw_fleet",
    "equal_finish",
    "equal_finish_time",
    "fit_compute",
    "preset",
    "solo_finish_time",
]
