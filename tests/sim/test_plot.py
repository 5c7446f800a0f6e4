"""Pictures: written, and the same bytes each time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.errors import InputError
from sim.plots import convergence, fleet_map, link

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


def test_map_shows_every_device_where_it_is(finished: Any) -> None:
    place = fleet_map([finished.files]).axes[0]
    table = finished.files.table("devices.csv")
    drawn = np.concatenate([np.asarray(dots.get_offsets()) for dots in place.collections])
    wanted = table.sort_values("los", ascending=False, kind="stable")[["x_m", "y_m"]].to_numpy()
    np.testing.assert_allclose(drawn, wanted)
    colours = np.concatenate([np.asarray(dots.get_array()) for dots in place.collections])
    assert sorted(colours) == pytest.approx(sorted(table["snr_db"]))


def test_map_shows_every_cell(tiny: Any, simulate: Any) -> None:
    run = simulate(tiny({"radio.cells": {"rings": 1}, "stop.rounds": 1}))
    place = fleet_map([run.files]).axes[0]
    assert len(place.patches) == 7
    assert len(place.lines[0].get_xdata()) == 7


def test_link_shows_rates_and_the_probability_of_sight(finished: Any) -> None:
    place, sight = link([finished.files]).axes
    los, nlos, mean = (np.asarray(line.get_ydata()) for line in place.lines)
    assert (nlos <= los).all()
    # With much shadowing the mean may leave the span of the two, not by much.
    assert (mean <= 1.01 * los).all()
    table = finished.files.table("devices.csv")
    dots = np.asarray(place.collections[0].get_offsets())
    np.testing.assert_allclose(dots[:, 0], table["distance_m"])
    np.testing.assert_allclose(dots[:, 1], table["solo_rate_bps"] / 1e6)
    assert sight.get_ylim() == (0, 1)


@pytest.mark.parametrize("kind", [fleet_map, link])
def test_too_many_panels_are_refused(kind: Any, finished: Any) -> None:
    with pytest.raises(InputError, match="7 runs: a picture of this kind shows at most 6"):
        kind([finished.files] * 7)
    assert len(kind([finished.files] * 2).axes) >= 3
