"""The command line itself: help, scenarios, catalogues, and what is loaded for them."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import sim.run
from sim.load import load_scenario
from sim.scenario import Scenario

Command = Callable[..., Any]

COMMANDS = (
    "run",
    "validate",
    "optimize",
    "compare",
    "plot",
    "verify",
    "calibrate",
    "init",
    "list",
    "schema",
)


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_help_lists_every_command(command: Command) -> None:
    answer = command("--help")
    assert (answer.code, answer.err) == (0, "")
    listed = [line.split()[0] for line in answer.out.splitlines() if line.startswith("  ")]
    assert set(COMMANDS) <= set(listed)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, command: Command) -> None:
    answer = command(name, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"Usage: sim {name} ")


def test_console_script() -> None:
    script = Path(sys.executable).with_name("sim")
    done = subprocess.run([script, "run", "none.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "sim: none.yaml: no such file; `sim init` writes a first scenario\n"


def test_wireless_and_optimizer_load_neither_torch_nor_simpy() -> None:
    heavy = "{'torch', 'transformers', 'peft', 'simpy', 'pandas', 'matplotlib'}"
    assert (
        python(f"import sys, wireless, optimizer; print({heavy} & set(sys.modules))") == "set()\n"
    )


def test_command_line_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'simpy', 'pandas', 'matplotlib', 'scipy', 'numpy'}"
    assert python(f"import sys, sim.cli; print({heavy} & set(sys.modules))") == "set()\n"


def test_init_writes_the_defaults(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    answer = command("init", file)
    assert (answer.code, answer.out) == (0, f"{file}\n")
    assert load_scenario(file) == Scenario(name="my-run")


def test_init_explains_every_key(command: Command, tmp_path: Path) -> None:
    """Each key stands below a comment; names of choices within a section explain themselves."""
    file = tmp_path / "new.yaml"
    command("init", file)
    lines = file.read_text(encoding="utf-8").splitlines()
    bare = [
        line.strip()
        for above, line in itertools.pairwise(lines)
        if line.strip() and not line.lstrip().startswith("#") and not above.lstrip().startswith("#")
    ]
    named = ("plain", "fslora", "always", "static", "fitted-nr", "ergodic", "digital")
    chosen = [f"name: {name}" for name in named]
    assert bare == [*chosen, "model: progress", "name: joint", "name: synchronous"]


def test_validate_prints_the_resolved_scenario(
    scenario_file: Callable[..., Path], command: Command, tmp_path: Path
) -> None:
    answer = command("validate", scenario_file(), "--set", "lora.rank=4", "--set", "policy=full")
    assert (answer.code, answer.err) == (0, "")
    again = tmp_path / "again.yaml"
    again.write_text(answer.out, encoding="utf-8")
    scenario = load_scenario(again)
    assert (scenario.lora.rank, scenario.policy.name) == (4, "full")
    assert command("validate", again).out == answer.out


def test_numbers_in_exponent_form_are_numbers(scenario_file: Callable[..., Path]) -> None:
    """YAML 1.1 takes 2e6 for text; a scenario means the number."""
    file = scenario_file(text="name: a\nradio: {bandwidth_hz: 2e6, extra_loss_db: 1E+1}\n")
    radio = load_scenario(file, ["radio.carrier_hz=.7e9"]).radio
    assert (radio.bandwidth_hz, radio.extra_loss_db, radio.carrier_hz) == (2e6, 10.0, 0.7e9)


def leaves(schema: dict[str, Any], node: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """Keys of a JSON Schema that hold values rather than sections."""
    found = {}
    for key, child in node.get("properties", {}).items():
        places = [child, *child.get("anyOf", []), *child.get("oneOf", []), *child.get("allOf", [])]
        names = [each["$ref"].rsplit("/", 1)[-1] for each in places if "$ref" in each]
        for name in names:
            found |= leaves(schema, schema["$defs"][name], f"{path}{key}[{name}].")
        if not names:
            found[path + key] = child
    return found


def test_policy_is_joint_unless_named(scenario_file: Callable[..., Path]) -> None:
    scenario = load_scenario(scenario_file(), ["policy={min_cohort: 2.0}"])
    assert (scenario.policy.name, scenario.policy.min_cohort) == ("joint", 2.0)


def test_schema_describes_every_key(command: Command) -> None:
    answer = command("schema")
    assert answer.code == 0
    schema = json.loads(answer.out)
    found = leaves(schema, schema, "")
    assert len(found) > 60
    assert [key for key, node in found.items() if not node.get("description")] == []
    units = {"_m_s": "(m/s)", "_per_s": "(1/s)", "_hours": "(h)", "_hz": "Hz", "_s": "(s)"}
    units |= {"_m": "(m)", "_dbm": "(dBm)", "_db": "(dB)", "_gib": "GiB"}
    for key, node in found.items():
        ending = next((unit for end, unit in units.items() if key.endswith(end)), "")
        assert ending in node["description"], key


#: What there must be at least in each catalogue.
LISTED = {
    "methods": ("fslora", "fedit"),
    "policies": (
        "joint",
        "uniform",
        "full",
        "data-proportional",
        "statistical",
        "luo",
        "mean-field",
        "rank-by-capability",
        "fedcs",
        "shi",
        "oort",
        "tsfa",
    ),
    "schedules": ("synchronous",),
    "devices": ("phone-snapdragon-778g", "raspberry-pi-5", "laptop"),
    "models": ("builtin:tiny-llama",),
    "data": ("builtin:stdlib", "datasets:NAME"),
}


@pytest.mark.parametrize("what", LISTED)
def test_list(what: str, command: Command) -> None:
    answer = command("list", what)
    assert (answer.code, answer.err) == (0, "")
    for name in LISTED[what]:
        assert name in answer.out


def test_list_of_everything(command: Command) -> None:
    answer = command("list")
    for names in LISTED.values():
        assert all(name in answer.out for name in names)


def test_every_listed_choice_can_be_chosen() -> None:
    """What a scenario accepts is what the catalogue lists."""
    schema = Scenario.model_json_schema()
    policies = set(schema["properties"]["policy"]["discriminator"]["mapping"])
    assert policies == set(LISTED["policies"])
    for key, value in (("method", "methods"), ("policy", "policies"), ("schedule", "schedules")):
        for name in LISTED[value]:
            scenario = Scenario.model_validate({"name": "a", key: name})
            assert getattr(scenario, key).name == name


def test_run_and_plan_from_the_command_line(
    scenario_file: Callable[..., Path], command: Command, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    file = scenario_file({"stop.rounds": 1})
    answer = command("run", file, "--seed", "7", "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    folder = Path("runs/tiny-7")
    written = yaml.safe_load((folder / "scenario.yaml").read_text(encoding="utf-8"))
    assert written["seed"] == 7
    answer = command("optimize", file, "--set", "seed=7", "--out", "plan.csv")
    assert answer.code == 0
    assert Path("plan.csv").read_bytes() == (folder / "plan.csv").read_bytes()
    for label in ("joint (chosen)", "uniform", "full"):
        assert label in answer.out
    again = command("run", file, "--seed", "7")
    assert again.code == 2
    assert "--out runs/tiny-7: not an empty folder" in again.err


def test_table_at_the_end_of_a_run(
    scenario_file: Callable[..., Path], command: Command, tmp_path: Path
) -> None:
    answer = command("run", scenario_file({"stop.rounds": 1}), "--out", tmp_path / "out")
    assert answer.code == 0
    for words in ("tiny, seed 1", "simulated time", "bits_per_byte", "not reached", "MB"):
        assert words in answer.out


def test_interruption(
    scenario_file: Callable[..., Path], command: Command, tmp_path: Path, monkeypatch: Any
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sim.run, "run", interrupted)
    answer = command("run", scenario_file(), "--out", tmp_path / "out")
    assert answer.code == 130
    assert "Traceback" not in answer.err
