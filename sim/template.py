"""A scenario with every key, its default and its meaning, written from the schema itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import yaml
from pydantic import BaseModel

from sim.scenario import Scenario


def commented_scenario(name: str = "my-run") -> str:
    """YAML text of a scenario of defaults, each key under a comment that explains it."""
    scenario = Scenario(name=name)
    head = "# A scenario for `sim run`. Every value shown is the default; keep what you change.\n\n"
    return head + "\n".join(_lines(scenario, 0)) + "\n"


def _lines(section: BaseModel, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            # A choice is explained by its key, a section by itself.
            first = (inspect.getdoc(type(value)) or "").split("\n", 1)[0]
            told = field.description or first
            yield from (f"{indent}# {line}" for line in told.splitlines())
            yield f"{indent}{key}:"
            yield from _lines(value, depth + 1)
            if depth == 0:
                yield ""
            continue
        if field.description and field.description != value:
            yield from (f"{indent}# {line}" for line in field.description.splitlines())
        yield f"{indent}{key}: {_scalar(value)}"


def _scalar(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("...").rstrip()
