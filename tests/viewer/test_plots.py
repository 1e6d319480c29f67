"""Plots of the report."""

import dataclasses
import re

import numpy as np

from geo4d.viewer.plots import focal_length, svg, trajectories
from tests.viewer.test_report import scene  # noqa: F401


def test_the_path_runs_from_below_to_above_and_says_its_length(scene) -> None:  # noqa: F811
    text = trajectories(scene)  # the camera goes 4 units forward
    above = re.findall(r"<line x1='([\d.]+)' y1='([\d.]+)' x2='([\d.]+)' y2='([\d.]+)' stroke='rgb", text)[:4]
    xs = [float(line[0]) for line in above]
    ys = [float(line[1]) for line in above] + [float(above[-1][3])]
    assert np.ptp(xs) == 0
    assert (np.diff(ys) < 0).all()
    assert "Path length 4 units" in text
    assert "Path length 4 m" in trajectories(dataclasses.replace(scene, scale_kind="metric"))
    two = trajectories(dataclasses.replace(scene, scene=np.array([0, 0, 1, 1, 1])))
    assert two.count("<svg") == 4
    assert "Path length 3 units" in two  # the step between the scenes is none


def test_the_focal_length_is_plotted_where_it_changes(scene) -> None:  # noqa: F811
    assert "<polyline" in focal_length(scene)
    same = dataclasses.replace(scene, intrinsics=np.tile(np.diag([15.0, 15, 1]), (5, 1, 1)))
    text = focal_length(same)
    assert "<svg" not in text
    assert "15.0 px at the width of the maps (30 px): 90.0 degrees across" in text


def test_a_drawing_has_a_name_and_shrinks() -> None:
    text = svg(10, 20, "a 'name' <b>", "")
    assert "viewBox='0 0 10 20'" in text
    assert "aria-label='a &#x27;name&#x27; &lt;b&gt;'" in text
