"""Kinds of devices: training speed, memory, power and battery; mixtures of kinds in a fleet.

A speed belongs to a device under a software: the same laptop is thirty times faster under one
library than under another (``docs/devices.md``). Where several are published, the preset's source
names the one taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless import streams
from wireless.checks import require


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
    battery_wh : float, optional
        Capacity of the battery in watt-hours; None where the device runs on mains.
    """

    name: str
    flops: float
    memory_bytes: float
    compute_power_w: float
    tx_power_dbm: float
    source: str
    step_overhead_s: float = 0.0
    battery_wh: float | None = None

    @property
    def battery_j(self) -> float:
        """Capacity of the battery in joules, ``inf`` on mains."""
        return inf if self.battery_wh is None else 3600 * self.battery_wh


# 23 dBm is power class 3 of 3GPP TS 38.101-1, table 6.2.1-1, which everything but the phones is
# assumed to reach with an external modem. A lithium cell holds its charge at 3.85 V on average.
_PRESETS = (
    DevicePreset(
        name="phone-low-end",
        flops=2.1e9,
        memory_bytes=2e9,
        compute_power_w=3.0,
        tx_power_dbm=23.0,
        source="estimate: 1.5 % (the Snapdragon 778G's share) of 4 x 2.4 GHz x 8 FLOP "
        "+ 4 x 1.9 GHz x 8 FLOP (Snapdragon 680); half of 4 GB; 5000 mAh at 3.85 V",
        battery_wh=19.3,
    ),
    DevicePreset(
        name="phone-snapdragon-778g",
        flops=3.2e9,
        memory_bytes=4e9,
        compute_power_w=4.0,
        tx_power_dbm=23.0,
        source="speed measured: 168-174 s per step of federated LoRA on Gemma-3-270M, batch "
        "8 x 64 tokens, on the CPU (arXiv 2605.08636); estimate: half of 8 GB, sustained power of "
        "a phone's processor; 4000 mAh at 3.85 V",
        battery_wh=15.4,
    ),
    DevicePreset(
        name="phone-mali-g715",
        flops=8.9e9,
        memory_bytes=6e9,
        compute_power_w=5.0,
        tx_power_dbm=23.0,
        source="speed measured: 100 s per step of LoRA on Qwen3-1.7B (8 bits), 128 tokens, on the "
        "GPU (github.com/tetherto/qvac-rnd-fabric-llm-finetune, docs/BENCHMARKS.md); estimate: "
        "half of a Pixel 9's 12 GB, sustained power of a phone; its 4700 mAh at 3.85 V",
        battery_wh=18.1,
    ),
    DevicePreset(
        name="phone-snapdragon-8-elite",
        flops=4.2e10,
        memory_bytes=6e9,
        compute_power_w=5.0,
        tx_power_dbm=23.0,
        source="speed measured: 21 s per step of LoRA on Qwen3-1.7B (8 bits), 128 tokens, on the "
        "GPU (github.com/tetherto/qvac-rnd-fabric-llm-finetune, docs/BENCHMARKS.md); estimate: "
        "half of a Galaxy S25's 12 GB, sustained power of a phone; its 4000 mAh at 3.85 V",
        battery_wh=15.4,
    ),
    DevicePreset(
        name="phone-iphone-16",
        flops=4.2e10,
        memory_bytes=4e9,
        compute_power_w=5.0,
        tx_power_dbm=23.0,
        source="speed measured: 21 s per step of LoRA on Qwen3-1.7B (8 bits), 128 tokens, on the "
        "GPU (github.com/tetherto/qvac-rnd-fabric-llm-finetune, docs/BENCHMARKS.md; its tokens "
        "per second imply 26 s); estimate: half of 8 GB, sustained power of a phone; 3561 mAh "
        "(Anatel's certificate) at 3.85 V",
        battery_wh=13.7,
    ),
    DevicePreset(
        name="raspberry-pi-4",
        flops=1.0e9,
        memory_bytes=3e9,
        compute_power_w=6.0,
        tx_power_dbm=23.0,
        source="estimate: 2 % (the share of a phone's large cores) of 4 cores x 1.5 GHz x 8 FLOP; "
        "4 GB board less 1 GB for the system; power measured under load: 5.4 W at the board, "
        "6.3 W at the wall (chipwired.com/raspberry-pi-power-use)",
    ),
    DevicePreset(
        name="raspberry-pi-5",
        flops=3.1e9,
        memory_bytes=7e9,
        compute_power_w=9.0,
        tx_power_dbm=23.0,
        source="estimate: 2 % (the share of a phone's large cores) of 4 cores x 2.4 GHz x 16 FLOP; "
        "8 GB board less 1 GB for the system; power of the loaded board",
    ),
    DevicePreset(
        name="jetson-nano",
        flops=4.5e10,
        memory_bytes=3e9,
        compute_power_w=10.0,
        tx_power_dbm=23.0,
        source="speed measured: 10.4-14.1 s per step of federated LoRA on Gemma-3-270M, batch "
        "8 x 64 tokens (arXiv 2605.08636); vendor's 10 W mode; estimate: 4 GB less 1 GB for the "
        "system",
    ),
    DevicePreset(
        name="jetson-tx2",
        flops=1.3e11,
        memory_bytes=7e9,
        compute_power_w=15.0,
        tx_power_dbm=23.0,
        source="estimate: 19 % (the Jetson Nano's share) of 665 GFLOP/s in float32, half of the "
        "1.33 TFLOP/s in float16, and 15 W (huggingface.co/hardware/jetson-tx2); 8 GB less 1 GB "
        "for the system",
    ),
    DevicePreset(
        name="jetson-xavier-nx",
        flops=1.6e11,
        memory_bytes=7e9,
        compute_power_w=20.0,
        tx_power_dbm=23.0,
        source="estimate: 19 % (the Jetson Nano's share) of 845 GFLOP/s in float32, half of the "
        "1.69 TFLOP/s in float16, and 20 W (huggingface.co/hardware/jetson-xavier-nx); 8 GB less "
        "1 GB for the system",
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
        name="jetson-agx-orin",
        flops=1.8e12,
        memory_bytes=60e9,
        compute_power_w=60.0,
        tx_power_dbm=23.0,
        source="speed measured: PyTorch fine-tunes Llama-2-7B 7.9 times slower than 550 tokens/s "
        "(arXiv 2310.17752, abstract); estimate: taken as LoRA; vendor's 60 W limit; 64 GB less "
        "4 GB for the system",
    ),
    DevicePreset(
        name="laptop",
        flops=1.5e11,
        memory_bytes=8e9,
        compute_power_w=45.0,
        tx_power_dbm=23.0,
        source="estimate: 20 % of 8 cores x 3 GHz x 32 FLOP, no discrete GPU; half of 16 GB; "
        "45 W class of mobile processors; battery of 55 Wh",
        battery_wh=55.0,
    ),
    DevicePreset(
        name="laptop-m3-pro",
        flops=1.2e11,
        memory_bytes=18e9,
        compute_power_w=40.0,
        tx_power_dbm=23.0,
        source="speed measured: 7.3 s per step of LoRA on Qwen3-1.7B (8 bits), 128 tokens, under a "
        "fork of llama.cpp (github.com/tetherto/qvac-rnd-fabric-llm-finetune, docs/BENCHMARKS.md); "
        "40 W (huggingface.co/hardware/apple-m3-pro); estimate: half of 36 GB, battery of the "
        "14-inch MacBook Pro, 70 Wh",
        battery_wh=70.0,
    ),
    DevicePreset(
        name="laptop-m1-max",
        flops=4.1e12,
        memory_bytes=16e9,
        compute_power_w=60.0,
        tx_power_dbm=23.0,
        source="speed measured: 250 tokens/s of LoRA on the top 4 blocks of Mistral-7B under MLX "
        "(github.com/ml-explore/mlx-examples, lora/README.md); estimate: half of 32 GB, power, "
        "battery of the 14-inch MacBook Pro, 70 Wh",
        battery_wh=70.0,
    ),
    DevicePreset(
        name="workstation-rtx-4090",
        flops=9.2e13,
        memory_bytes=24e9,
        compute_power_w=450.0,
        tx_power_dbm=23.0,
        source="speed measured: 3083 tokens/s of LoRA on Llama-3.1-8B, 2 x 2048 tokens "
        "(github.com/pytorch/torchtune, README.md), counted without checkpointing; vendor's "
        "24 GB and 450 W",
    ),
    DevicePreset(
        name="server-t4",
        flops=3.1e13,
        memory_bytes=16e9,
        compute_power_w=70.0,
        tx_power_dbm=23.0,
        source="estimate: 48 % (the A100's share) of the vendor's 65 TFLOP/s in float16; vendor's "
        "16 GB and 70 W",
    ),
    DevicePreset(
        name="server-l4",
        flops=5.8e13,
        memory_bytes=24e9,
        compute_power_w=72.0,
        tx_power_dbm=23.0,
        source="estimate: 48 % (the A100's share) of the vendor's 121 TFLOP/s in bfloat16; "
        "vendor's 24 GB and 72 W",
    ),
    DevicePreset(
        name="server-a100",
        flops=1.5e14,
        memory_bytes=80e9,
        compute_power_w=400.0,
        tx_power_dbm=23.0,
        source="speed measured: 5.2 s per step of LoRA on Qwen-7B, 8 x 2048 tokens "
        "(github.com/QwenLM/Qwen, README.md); vendor's 80 GB and 400 W",
    ),
    DevicePreset(
        name="server-h100",
        flops=6.7e14,
        memory_bytes=80e9,
        compute_power_w=700.0,
        tx_power_dbm=23.0,
        source="speed measured: 25206 tokens/s of LoRA on Llama-2-7B in FP8, 4096 packed tokens "
        "(github.com/NVIDIA/NeMo, docs/source/performance/performance_summary.md); vendor's 80 GB "
        "and 700 W",
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


def draw_kinds(
    seed: int, device: ArrayLike, share: Mapping[str, float] | ArrayLike
) -> NDArray[np.intp]:
    """Draw the kind of every device of a mixed fleet.

    A device's kind is a pure function of seed and device number: more devices, in whatever order,
    change nobody's kind.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    device : array_like of int, shape (N,)
        Device numbers.
    share : mapping of str to float, or array_like, shape (K,)
        Weights of the K kinds, >= 0, of any positive sum; the kinds of a mapping are numbered in
        its order.

    Returns
    -------
    ndarray of int, shape (N,)
        Numbers of the kinds, from 0 to K - 1.

    Raises
    ------
    ValueError
        If the weights are not a row of finite numbers >= 0 with a positive sum.
    """
    values = list(share.values()) if isinstance(share, Mapping) else share
    weight = np.asarray(values, dtype=np.float64)
    if weight.ndim != 1 or not weight.any():
        raise ValueError(f"share must be a row of weights with a positive sum, got {weight}")
    require("share", weight, np.isfinite(weight) & (weight >= 0), "finite and at least 0")
    bound = np.cumsum(weight)
    draw = streams.uniform(seed, "fleet.kind", device)
    return np.searchsorted(bound / bound[-1], draw, side="right")
