"""Kinds of devices: training speed, memory and power."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class DevicePreset:
    """What a kind of device can do.

    Parameters
    ----------
    name : str
        Name that scenarios use.
    flops : float
        Effective speed of LoRA training in FLOP/s, as opposed to the peak.
    memory_bytes : float
        Memory that training may use.
    compute_power_w : float
        Power drawn while training, in watts.
    tx_power_dbm : float
        Maximum transmit power in dBm.
    source : str
        Where the figures come from; what is not measured is called an estimate.
    step_overhead_s : float
        Fixed time of one local step beside its arithmetic, in seconds, >= 0.
    """

    name: str
    flops: float
    memory_bytes: float
    compute_power_w: float
    tx_power_dbm: float
    source: str
    step_overhead_s: float = 0.0


# 23 dBm is power class 3 of 3GPP TS 38.101-1, table 6.2.1-1, which the boards and the laptop are
# assumed to reach with an external modem.
_PRESETS = (
    DevicePreset(
        name="phone-snapdragon-778g",
        flops=3.2e9,
        memory_bytes=4e9,
        compute_power_w=4.0,
        tx_power_dbm=23.0,
        source="speed measured: 168-174 s per step of federated LoRA on Gemma-3-270M, batch "
        "8 x 64 tokens; estimate: half of 8 GB, sustained power of a phone's processor",
    ),
    DevicePreset(
        name="raspberry-pi-4",
        flops=1.0e9,
        memory_bytes=3e9,
        compute_power_w=6.0,
        tx_power_dbm=23.0,
        source="estimate: 2 % (the phone's share) of 4 cores x 1.5 GHz x 8 FLOP; 4 GB board "
        "less 1 GB for the system; power of the loaded board",
    ),
    DevicePreset(
        name="raspberry-pi-5",
        flops=3.1e9,
        memory_bytes=7e9,
        compute_power_w=9.0,
        tx_power_dbm=23.0,
        source="estimate: 2 % (the phone's share) of 4 cores x 2.4 GHz x 16 FLOP; 8 GB board "
        "less 1 GB for the system; power of the loaded board",
    ),
    DevicePreset(
        name="jetson-nano",
        flops=4.5e10,
        memory_bytes=3e9,
        compute_power_w=10.0,
        tx_power_dbm=23.0,
        source="speed measured: 10.4-14.1 s per step of federated LoRA on Gemma-3-270M, batch "
        "8 x 64 tokens; vendor's 10 W mode; estimate: 4 GB less 1 GB for the system",
    ),
    DevicePreset(
        name="jetson-orin-nano",
        flops=2.4e11,
        memory_bytes=7e9,
        compute_power_w=15.0,
        tx_power_dbm=23.0,
        source="estimate: 19 % (the Jetson Nano's share) of 1024 CUDA cores x 625 MHz x 2 FLOP; "
        "vendor's 15 W mode; 8 GB less 1 GB for the system",
    ),
    DevicePreset(
        name="laptop",
        flops=1.5e11,
        memory_bytes=8e9,
        compute_power_w=45.0,
        tx_power_dbm=23.0,
        source="estimate: 20 % of 8 cores x 3 GHz x 32 FLOP, no discrete GPU; half of 16 GB; "
        "45 W class of mobile processors",
    ),
)

PRESETS: Mapping[str, DevicePreset] = MappingProxyType({each.name: each for each in _PRESETS})
"""The device presets by name."""


def preset(name: str) -> DevicePreset:
    """Return the preset of a name.

    Parameters
    ----------
    name : str
        A key of `PRESETS`.

    Returns
    -------
    DevicePreset
        The preset.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the known ones.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown device preset {name!r}, known: {', '.join(sorted(PRESETS))}")
    return PRESETS[name]
