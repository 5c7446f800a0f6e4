"""Pictures: written, and the same bytes each time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.plots import convergence

HEAD = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml", ".pdf": b"%PDF-"}


@pytest.mark.parametrize("ending", HEAD)
def test_equal_runs_give_equal_pictures(
    ending: str, finished: Any, command: Callable[..., Any], tmp_path: Path
) -> None:
    pictures = []
    for name in ("one", "other"):
        file = tmp_path / f"{name}{ending}"
        answer = command("plot", finished.files.folder, "-o", file)
        assert (answer.code, answer.out, answer.err) == (0, f"{file}\n", "")
        pictures.append(file.read_bytes())
    assert pictures[0].startswith(HEAD[ending])
    assert pictures[0] == pictures[1]


def test_convergence_shows_the_evaluations(finished: Any) -> None:
    axes = convergence([finished.files]).axes[0]
    rounds = finished.files.table("rounds.csv")
    line, level = axes.get_lines()
    assert line.get_xdata().tolist() == rounds["end_s"].tolist()
    assert line.get_ydata().tolist() == rounds["eval_loss"].tolist()
    assert line.get_label() == "tiny"
    assert list(level.get_ydata()) == [2.0, 2.0]


def test_runs_of_one_scenario_share_a_colour_and_a_name(finished: Any) -> None:
    axes = convergence([finished.files, finished.files]).axes[0]
    one, other, _ = axes.get_lines()
    assert one.get_color() == other.get_color()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["tiny"]
