"""How well one published step of a device predicts its others: the tables of docs/devices.md.

Every step is predicted from the operations of the one marked "fitted", by operations over speed.
The last column of the first table is a description, not a prediction: the error that is left when
speed and a fixed overhead per step are fitted to all steps of a family of four or more.

    python -m benchmarks.device_presets
"""

from collections.abc import Iterable
from itertools import groupby
from statistics import median

from benchmarks.device_presets.published import Prediction, predict
from benchmarks.device_presets.steps import PUBLISHED_STEPS
from wireless.compute import fit_compute


def step_table(predictions: Iterable[Prediction]) -> str:
    """One row per step."""
    lines = [
        "| device | software | model | method | batch x length | GFLOP | measured s | predicted s "
        "| error |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in predictions:
        step = each.step
        error = "fitted" if step.fitted else f"{100 * each.relative_error:+.0f} %"
        lines.append(
            f"| {step.device} | {step.software} | {step.model} | {step.method} "
            f"| {step.batch} x {step.length} | {step.flops / 1e9:.4g} | {step.seconds:.4g} "
            f"| {each.predicted_s:.4g} | {error} |"
        )
    return "\n".join(lines)


def family_table(predictions: Iterable[Prediction]) -> str:
    """One row per device and software."""
    lines = [
        "| device | software | GFLOP/s | predicted steps | median error | largest error "
        "| both fitted to all: rms, overhead |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    families = groupby(predictions, key=lambda each: (each.step.device, each.step.software))
    for (device, software), group in families:
        members = list(group)
        errors = [abs(each.relative_error) for each in members if not each.step.fitted]
        lines.append(
            f"| {device} | {software} | {members[0].speed_flops / 1e9:.3g} | {len(errors)} "
            f"| {100 * median(errors):.0f} % | {100 * max(errors):.0f} % | {_described(members)} |"
        )
    return "\n".join(lines)


def _described(members: list[Prediction]) -> str:
    """Overhead and error of the two-parameter fit, if there are steps enough to tell them."""
    if len(members) < 4:
        return ""
    fit = fit_compute(
        [each.step.flops for each in members], [each.step.seconds for each in members]
    )
    return f"{100 * fit.rms_error:.0f} %, {fit.step_overhead_s:.2g} s"


def main() -> None:
    """Print both tables."""
    predictions = predict(PUBLISHED_STEPS)
    print(family_table(predictions), step_table(predictions), sep="\n\n")


if __name__ == "__main__":
    main()
