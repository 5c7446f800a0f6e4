"""What sections are made of."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(gt=0, le=1)]
Decibel = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1e30)]

NumberFormat = Literal["float32", "bfloat16", "float16"]

#: Size of a number in each format.
NUMBER_BITS: Mapping[NumberFormat, int] = MappingProxyType(
    {"float32": 32, "bfloat16": 16, "float16": 16}
)


class Section(BaseModel):
    """A part of the scenario: unknown keys, wrong types, NaN and infinities are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def by_name(value: Any) -> Any:
    """`policy: joint` is short for `policy: {name: joint}`."""
    return {"name": value} if isinstance(value, str) else value
