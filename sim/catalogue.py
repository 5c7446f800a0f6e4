"""What a scenario can choose from, by kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType


def _methods() -> list[tuple[str, ...]]:
    from fslora.methods import METHODS

    return [
        (
            name,
            _first_line(inspect.getmodule(type(method))),
            _sum(method.up, (method.up_bits, "bits"), (method.per_token, "per token")),
            _sum(method.down, (method.merged, "once"), (method.per_token, "per token")),
            "base" if method.merges_into_base else "factors",
            ", ".join(method.personal).upper() or "-",
        )
        for name, method in METHODS.items()
    ]


def _policies() -> list[tuple[str, str]]:
    from optimizer.policies import POLICIES

    return [(name, _first_line(inspect.getmodule(policy))) for name, policy in POLICIES.items()]


def _schedules() -> list[tuple[str, str]]:
    from sim.schedules import SCHEDULES

    return [(name, _first_line(inspect.getmodule(each))) for name, each in SCHEDULES.items()]


def _devices() -> list[tuple[str, str]]:
    from wireless.devices import PRESETS

    return [
        (
            name,
            f"{each.flops / 1e9:g} GFLOP/s, {each.memory_bytes / 1e9:g} GB, "
            f"{each.compute_power_w:g} W; {each.source}",
        )
        for name, each in PRESETS.items()
    ]


def _models() -> list[tuple[str, str]]:
    return [
        ("builtin:tiny-llama", "byte-level Llama, 886 k parameters, weights inside the package"),
        ("ORGANISATION/NAME", "a Hugging Face model with safetensors weights"),
        ("FOLDER", "a folder with config.json and safetensors weights"),
    ]


def _data() -> list[tuple[str, str]]:
    return [
        ("builtin:stdlib", "source of ten standard-library packages of this interpreter"),
        ("builtin:synthetic", "numbers of examples without text, where training is left out"),
        ("FILE.csv, FILE.jsonl", "text, and optionally class and group, by column"),
        ("datasets:NAME", "a data set of the datasets library (extra `datasets`)"),
    ]


def _sum(numbers: str, *others: tuple[str, str]) -> str:
    return " + ".join([numbers, *(f"{each} {what}" for each, what in others if each != "0")])


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").split("\n", 1)[0]


COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"methods": ("name", "what", "up, per layer", "down, per layer", "merges into", "stays")}
)
"""Names of the columns, of tables that have more than names and what they are."""

CATALOGUE: Mapping[str, Callable[[], Sequence[tuple[str, ...]]]] = MappingProxyType(
    {
        "methods": _methods,
        "policies": _policies,
        "schedules": _schedules,
        "devices": _devices,
        "models": _models,
        "data": _data,
    }
)
