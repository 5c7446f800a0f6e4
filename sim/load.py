"""Reading a scenario file, with errors that name the key, the value and the remedy."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from sim.errors import InputError
from sim.scenario import SHORT_FORMS, Scenario
from sim.sections.fleet import DEVICE_FILES, Device
from sim.sections.learning import STDLIB, SYNTHETIC


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads 1e6 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise InputError(
                    f"line {key_node.start_mark.line + 1}: key {key!r} is not text; quote it"
                )
            if key in seen:
                raise InputError(
                    f"line {key_node.start_mark.line + 1}: '{key}' is given twice; keep one"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load_scenario(path: Path, overrides: Sequence[str] = ()) -> Scenario:
    """Read and check a scenario.

    Parameters
    ----------
    path
        YAML file.
    overrides
        Assignments `a.b=value`, applied in order before the check; values are YAML.

    Raises
    ------
    InputError
        If the file cannot be read, is not a mapping, or any value is refused.
    """
    tree = read_yaml(path, "sim init", "a first scenario")
    for assignment in overrides:
        _assign(tree, assignment)
    _inline_device(tree, path.parent)
    try:
        scenario = Scenario.model_validate(tree)
    except ValidationError as error:
        problems = [explain(detail) for detail in error.errors()]
        raise InputError(f"{path}: " + "\n".join(problems)) from None
    check_names(scenario)
    return scenario


def load_device(path: Path) -> Device:
    """Read and check a device preset.

    Parameters
    ----------
    path
        YAML file, as `sim calibrate` writes it.

    Raises
    ------
    InputError
        If the file cannot be read, is not a mapping, or any value is refused.
    """
    tree = read_yaml(path, "sim calibrate", "a preset")
    try:
        return Device.model_validate(tree)
    except ValidationError as error:
        problems = [explain(detail, Device) for detail in error.errors()]
        raise InputError(f"{path}: " + "\n".join(problems)) from None


def _inline_device(tree: dict[str, Any], folder: Path) -> None:
    """Put what a device file says in the place of its name, so that the scenario stands alone."""
    fleet = tree.get("fleet")
    if not isinstance(fleet, dict):
        return
    places = [("fleet.preset", fleet)]
    if isinstance(fleet.get("preset"), list):
        places = [
            (f"fleet.preset.{number}.preset", part)
            for number, part in enumerate(fleet["preset"])
            if isinstance(part, dict)
        ]
    for key, place in places:
        name = place.get("preset")
        if isinstance(name, str) and name.endswith(DEVICE_FILES):
            try:
                place["preset"] = load_device(folder / name).model_dump()
            except InputError as error:
                raise InputError(f"{key} = '{name}': {error}") from None


def check_names(scenario: Scenario) -> None:
    """Check what the schema cannot: names in registries and files on disk.

    Raises
    ------
    InputError
        If a preset, a method, a model or a data file does not exist.
    """
    from fslora.models import BUILTIN
    from wireless.devices import PRESETS

    preset = scenario.fleet.preset
    if isinstance(preset, str):
        _one_of("fleet.preset", preset, PRESETS)
    elif isinstance(preset, list):
        for number, part in enumerate(preset):
            if isinstance(part.preset, str):
                _one_of(f"fleet.preset.{number}.preset", part.preset, PRESETS)
    _builtin("model.name", scenario.model.name, BUILTIN)
    data = scenario.data
    _builtin("data.source", data.source, STDLIB, SYNTHETIC)
    if data.source in (STDLIB, SYNTHETIC) or data.source.startswith("datasets:"):
        return
    for key, name in (("data.source", data.source), ("data.held_out", data.held_out)):
        if name is None:
            continue
        if Path(name).suffix not in (".csv", ".jsonl"):
            raise InputError(
                f"{key} = '{name}': give {STDLIB}, a .csv or .jsonl file, or datasets:NAME"
            )
        if not Path(name).is_file():
            raise InputError(f"{key} = '{name}': no such file; give its path from here")


def _builtin(key: str, name: str, *known: str) -> None:
    if name.startswith("builtin:"):
        _one_of(key, name, known)


def _one_of(key: str, name: str, known: Iterable[str]) -> None:
    names = sorted(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean '{near[0]}'? Known: " if near else "known: "
        raise InputError(f"{key} = '{name}': {hint}{', '.join(names)}")


def read_yaml(path: Path, command: str, result: str) -> dict[str, Any]:
    """Keys and values of a file of which `command` writes `result`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `{command}` writes {result}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    try:
        tree = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not YAML ({reason}); see `{command}` for the form") from None
    if not isinstance(tree, dict):
        raise InputError(
            f"{path}: expected keys and values such as 'name: trial', found "
            f"{type(tree).__name__}; see `{command}` for the form"
        )
    return tree


def _assign(tree: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    names = key.split(".")
    if not equals or not all(names):
        raise InputError(f"--set {assignment}: expected KEY=VALUE, such as radio.bandwidth_hz=2e6")
    try:
        value = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except InputError as error:
        raise InputError(f"--set {assignment}: {error}") from None
    except yaml.YAMLError:
        raise InputError(f"--set {assignment}: '{text}' is not a YAML value") from None
    place = tree
    for name in names[:-1]:
        inner = place.get(name)
        if inner is None:
            inner = {}
        elif isinstance(inner, str) and name in SHORT_FORMS:
            inner = {SHORT_FORMS[name]: inner}
        elif not isinstance(inner, dict):
            raise InputError(f"--set {assignment}: '{name}' is a value, it holds no keys")
        place[name] = inner
        place = inner
    place[names[-1]] = value


def explain(detail: ErrorDetails, root: type[BaseModel] = Scenario) -> str:
    """One line of key, value and remedy for a schema error."""
    path, section = _walk(detail["loc"], root)
    value, kind = detail["input"], detail["type"]
    context = detail.get("ctx", {})
    if kind == "value_error":
        reason = str(context["error"])
        # Checks across keys name the full path themselves.
        return reason if not path else f"{path}.{reason}"
    if kind == "extra_forbidden":
        known = list(section.model_fields) if section is not None else []
        near = difflib.get_close_matches(path.rsplit(".", 1)[-1], known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
        return f"{path} = {_show(value)}: unknown key; {hint}"
    if kind == "missing":
        return f"{path}: missing; give it a value"
    if kind == "union_tag_invalid":
        key = context["discriminator"].strip("'")
        known = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
        near = difflib.get_close_matches(context["tag"], known, 2)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        names = ", ".join(f"'{tag}'" for tag in known)
        return f"{path}.{key} = '{context['tag']}': {hint}accepted: {names}"
    return f"{path} = {_show(value)}: {_requirement(detail['msg'])}"


def _requirement(message: str) -> str:
    message = message.partition(" after validation")[0]
    lowered = message.removeprefix("Input should ").removeprefix("String should ")
    if lowered == message:
        return message[0].lower() + message[1:]
    return f"should {lowered}"


def _show(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _walk(
    location: Sequence[int | str], root: type[BaseModel]
) -> tuple[str, type[BaseModel] | None]:
    """Dotted path without the tags pydantic adds for unions, and the section it ends in."""
    names: list[str] = []
    section: type[BaseModel] | None = root
    tags: Mapping[str, type[BaseModel] | None] = {}
    for part in location:
        if isinstance(part, str) and part in tags:
            section, tags = tags[part], {}
            continue
        names.append(str(part))
        if section is not None and isinstance(part, str) and part in section.model_fields:
            tags = _tagged(section, part)
            inner = section.model_fields[part].annotation
            # A section or null is that section.
            for kind in (inner, *typing.get_args(inner)):
                if isinstance(kind, type) and issubclass(kind, BaseModel) and not tags:
                    section = kind
    return ".".join(names), section


def _tagged(section: type[BaseModel], field: str) -> dict[str, type[BaseModel] | None]:
    """Members of a discriminated union by their tag, None for a value; empty for other fields."""
    info = section.model_fields[field]
    found: dict[str, type[BaseModel] | None] = {}
    for member in typing.get_args(info.annotation):
        kind, *marks = typing.get_args(member) or (member,)
        tag = next((mark for mark in marks if isinstance(mark, Tag)), None)
        if tag is not None:
            (kind,) = typing.get_args(kind) or (kind,)  # of a list, its elements
            found[str(tag.tag)] = (
                kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
            )
        elif info.discriminator is not None:
            key = str(info.discriminator)
            for name in typing.get_args(member.model_fields[key].annotation):
                found[name] = member
    return found
