"""The command line, `sim`.

Heavy packages are imported inside the commands that use them, so that help answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    name="sim",
    help="Co-simulate federated LoRA fine-tuning over a wireless network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ScenarioFile = Annotated[Path, typer.Argument(help="Scenario in YAML.", metavar="SCENARIO")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: a.b=value.", metavar="KEY=VALUE")
]
RunFolders = Annotated[list[Path], typer.Argument(help="Run directories.", metavar="RUN...")]


@app.command()
def run(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; by default runs/NAME-SEED.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Root seed.")] = None,
    overrides: Overrides = None,
    device: Annotated[
        str | None, typer.Option(help="Where to train: auto, cpu or cuda.", metavar="DEVICE")
    ] = None,
    timing_only: Annotated[
        bool, typer.Option("--timing-only", help="Simulate time alone, without training.")
    ] = False,
    timeline: Annotated[
        str | None,
        typer.Option(help="What is written of rounds: rounds, devices or full.", metavar="LEVEL"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run in its folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no table.")] = False,
) -> None:
    """Run one co-simulation and write its directory."""
    from sim.load import load_scenario

    assignments = list(overrides or [])
    if seed is not None:
        assignments.append(f"seed={seed}")
    if device is not None:
        assignments.append(f"training.device={device}")
    if timing_only:
        assignments.append("training.timing_only=true")
    if timeline is not None:
        assignments.append(f"output.timeline={timeline}")
    checked = load_scenario(scenario, assignments)
    folder = out or Path("runs") / f"{checked.name}-{checked.seed}"

    from sim.records import check_folder

    if not resume:
        check_folder(folder)

    from sim.run import finished_before
    from sim.run import run as simulate
    from sim.show import progress, run_table

    if resume and not quiet and finished_before(checked, folder) is not None:
        print(f"{folder}: has finished before and is left as it is")
    with progress(quiet) as tell:
        summary = simulate(checked, folder, tell, resume)
    if not quiet:
        run_table(summary, folder)


@app.command()
def validate(scenario: ScenarioFile, overrides: Overrides = None) -> None:
    """Check a scenario and print it with every default written out."""
    from sim.load import load_scenario
    from sim.scenario import dump_scenario

    print(dump_scenario(load_scenario(scenario, overrides or ())), end="")


@app.command()
def optimize(
    scenario: ScenarioFile,
    out: Annotated[Path | None, typer.Option(help="Write the plan as CSV.")] = None,
    overrides: Overrides = None,
) -> None:
    """Solve for the plan alone and show it beside the baselines."""
    from sim.load import load_scenario

    checked = load_scenario(scenario, overrides or ())

    from sim.optimize import optimize as plan_and_compare
    from sim.show import plan_table

    plan_table(checked, plan_and_compare(checked, out))


@app.command()
def compare(
    runs: RunFolders,
    target: Annotated[
        str | None,
        typer.Option(
            help="What to reach; by default the scenarios' own target.", metavar="METRIC=VALUE"
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.")] = None,
) -> None:
    """Time, bytes and energy to a target, over seeds."""
    from sim.compare import compare as compare_runs
    from sim.compare import parse_target, write_csv
    from sim.rundir import open_run
    from sim.show import comparison_table

    wanted = None if target is None else parse_target(target)
    result = compare_runs([open_run(folder) for folder in runs], wanted)
    if csv is not None:
        write_csv(result, csv)
    comparison_table(result)


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="Study in YAML.", metavar="STUDY")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs; by default runs/ and its name.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Runs at a time.")] = 2,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Run variants of a scenario on common seeds and compare them; what has finished is kept."""
    from sim.compare import write_csv
    from sim.show import comparison_table, several
    from sim.study import load_study, run_study

    parts = load_study(file, out or Path("runs") / file.stem)
    with several(quiet, len(parts)) as tell:
        result, failed = run_study(parts, workers, tell)
    if csv is not None:
        write_csv(result, csv)
    comparison_table(result)
    for folder, reason in failed.items():
        print(f"{folder}: {reason}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command()
def plot(
    runs: RunFolders,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Picture: .png, .svg or .pdf; by default KIND.png."),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            help="convergence: loss against simulated time; map: devices in their cells, by SNR; "
            "link: uplink rate against distance; gantt: who did what when; trace: the same as "
            "JSON for Perfetto, by default trace.json.",
            metavar="KIND",
        ),
    ] = "convergence",
    rounds: Annotated[
        str | None,
        typer.Option(
            help="Rounds of a gantt (by default 1-3) or a trace (by default all).",
            metavar="FIRST-LAST",
        ),
    ] = None,
) -> None:
    """Draw finished runs."""
    from sim.errors import InputError
    from sim.plots import KINDS, save
    from sim.plots.course import parse_rounds
    from sim.plots.gantt import gantt
    from sim.plots.trace import write_trace
    from sim.rundir import open_run

    if kind not in (*KINDS, "trace"):
        raise InputError(f"--kind {kind}: known: {', '.join(KINDS)}, trace")
    if rounds is not None and kind not in ("gantt", "trace"):
        raise InputError(f"--rounds {rounds}: belongs to --kind gantt or trace; leave it out")
    chosen = None if rounds is None else parse_rounds(rounds)
    opened = [open_run(folder) for folder in runs]
    file = out or Path("trace.json" if kind == "trace" else f"{kind}.png")
    if kind == "trace":
        write_trace(opened, file, chosen)
    elif chosen is not None:
        save(gantt(opened, chosen), file)
    else:
        save(KINDS[kind](opened), file)
    print(file)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="Run directory.", metavar="RUN")]) -> None:
    """Re-check every invariant of a finished run from its files."""
    from sim.rundir import open_run
    from sim.verify import verify as check

    verdict = check(open_run(folder))
    for finding in verdict.findings[:50]:
        print(finding, file=sys.stderr)
    if verdict.findings:
        print(f"{folder}: {len(verdict.findings)} findings in {verdict.rows} rows", file=sys.stderr)
        raise typer.Exit(1)
    print(f"{folder}: {verdict.rows} rows, all invariants hold")


@app.command()
def calibrate(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Preset to write: .yaml; its stem is the name.")
    ],
    model: Annotated[
        str, typer.Option(help="Base model, as model.name of a scenario.")
    ] = "builtin:tiny-llama",
    task: Annotated[
        str, typer.Option(help="causal-lm or classification.", metavar="TASK")
    ] = "causal-lm",
    targets: Annotated[
        str, typer.Option(help="Adapted layers, as lora.targets, with commas.", metavar="NAMES")
    ] = "all-linear",
    dtype: Annotated[
        str, typer.Option(help="Frozen weights: float32, bfloat16 or float16.", metavar="DTYPE")
    ] = "float32",
    ranks: Annotated[str, typer.Option(help="Ranks.", metavar="LIST")] = "1,4,16",
    batches: Annotated[str, typer.Option(help="Examples per step.", metavar="LIST")] = "1,4,8",
    lengths: Annotated[str, typer.Option(help="Tokens per example.", metavar="LIST")] = "32,64,128",
    repeats: Annotated[int, typer.Option(help="Timed jobs per point.")] = 5,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; by default as many as torch takes.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where to train: auto, cpu or cuda.", metavar="DEVICE")
    ] = "auto",
    power_w: Annotated[
        float | None, typer.Option(help="Power while training (W); by default an estimate.")
    ] = None,
    tx_power_dbm: Annotated[float, typer.Option(help="Transmit power (dBm).")] = 23.0,
    csv: Annotated[Path | None, typer.Option(help="Write every measured time as CSV.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no table.")] = False,
) -> None:
    """Measure this machine and write it as a device preset."""
    from fslora.calibrate import Grid
    from sim.calibrate import Request, check_files, numbers, write_csv, write_preset
    from sim.calibrate import calibrate as measure_and_fit
    from sim.show import calibration_table, measuring

    check_files(out, csv)
    grid = Grid(
        numbers("--ranks", ranks), numbers("--batches", batches), numbers("--lengths", lengths)
    )
    request = Request(
        out.stem,
        model,
        task,
        dtype,
        tuple(name.strip() for name in targets.split(",")),
        grid,
        repeats,
        threads,
        device,
        power_w,
        tx_power_dbm,
    )
    with measuring(quiet) as tell:
        result = measure_and_fit(request, tell)
    write_preset(result.device, out)
    if csv is not None:
        write_csv(result.measurement, csv)
    if not quiet:
        calibration_table(result, out)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="File to write.", metavar="FILE")] = Path(
        "scenario.yaml"
    ),
) -> None:
    """Write a scenario with every key, its default and its meaning."""
    from sim.errors import InputError
    from sim.template import commented_scenario

    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(commented_scenario())
    except FileExistsError:
        raise InputError(f"{file}: exists already; name another") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror})") from None
    print(file)


@app.command("list")
def list_(
    what: Annotated[
        str | None,
        typer.Argument(
            help="methods, policies, schedules, devices, models or data; all if not given.",
            metavar="WHAT",
        ),
    ] = None,
) -> None:
    """Show what a scenario can choose from."""
    from sim.catalogue import CATALOGUE, COLUMNS
    from sim.errors import InputError
    from sim.show import catalogue_table

    if what is not None and what not in CATALOGUE:
        raise InputError(f"{what}: known: {', '.join(CATALOGUE)}")
    for name in CATALOGUE if what is None else (what,):
        catalogue_table(name, CATALOGUE[name](), COLUMNS.get(name, ()))


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenarios, for editors."""
    import json

    from sim.scenario import Scenario

    print(json.dumps(Scenario.model_json_schema(), indent=2))


@app.command("fit-rounds")
def fit_rounds(
    scenario: ScenarioFile,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Write policy.rounds as YAML; printed if not given."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every pilot as CSV.")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Root seeds; by default three, or one if quick, from the scenario's own.",
            metavar="LIST",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the plans that a fit cannot do without.")
    ] = False,
    overrides: Overrides = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no table.")] = False,
) -> None:
    """Run pilots of a scenario and fit the round model to them."""
    from sim.load import load_scenario

    checked = load_scenario(scenario, overrides or ())

    from sim.fit_rounds import check_places, parse_seeds, show, snippet, write_csv, write_snippet
    from sim.fit_rounds import fit_rounds as run_and_fit
    from sim.show import measuring

    check_places(out, csv)
    first = checked.seed
    own = tuple(range(first, first + (1 if quick else 3)))
    with measuring(quiet) as tell:
        result = run_and_fit(checked, own if seeds is None else parse_seeds(seeds), quick, tell)
    if csv is not None:
        write_csv(result, csv)
    if not quiet:
        show(checked, result)
    text = snippet(checked, result)
    if out is None:
        print(text, end="")
    else:
        write_snippet(text, out)


def main() -> NoReturn:
    """Entry point: turns refused input into one message and exit code 2."""
    from sim.errors import InputError, RunError

    try:
        app(prog_name="sim")
    except InputError as error:
        _stop(error, 2)
    except RunError as error:
        _stop(error, error.exit_code)
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    sys.exit(0)


def _stop(message: Any, code: int) -> NoReturn:
    print(f"sim: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
