"""States of learners as tensors by flat names: what they hold, and whether one fits."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class StateError(ValueError):
    """Tensors that are not the state of this learner."""


def numbers_of(state: Mapping[str, Tensor], part: str) -> list[int]:
    """Numbers that occur in the names PART.NUMBER.TENSOR, ascending."""
    found = (name.split(".")[1] for name in state if name.startswith(f"{part}."))
    return sorted({int(number) for number in found if number.isdecimal()})


def check_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse a state whose tensors are not of the wanted names, shapes and number formats."""
    for name in sorted(wanted.keys() ^ state.keys()):
        word = "is missing" if name in wanted else "is not part of this learner"
        raise StateError(f"tensor {name} {word}")
    for name, value in wanted.items():
        found = state[name]
        if found.shape != value.shape or found.dtype != value.dtype:
            raise StateError(
                f"tensor {name} is {tuple(found.shape)} in {found.dtype}, "
                f"wanted {tuple(value.shape)} in {value.dtype}"
            )
