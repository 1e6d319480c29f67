"""What the report says in plain words, on results whose story is known."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from geo4d.types import Reconstruction
from geo4d.viewer.words import describe, ranges
from tests.viewer.test_report import scene  # noqa: F401


def shot(kind: str, start: int = 0, stop: int = 5, **more: Any) -> dict[str, Any]:
    return {"start": start, "stop": stop, "kind": kind, "statement": "said", "focal_assumed": False, **more}


def told(scene: Reconstruction, *shots: dict[str, Any], **changes: Any) -> Reconstruction:  # noqa: F811
    diagnostics = {"motion": list(shots), "windows": [[0, 1, 2], [2, 3, 4]], **changes.pop("diagnostics", {})}
    return dataclasses.replace(scene, **{"reliable": None, "diagnostics": diagnostics, **changes})


def test_a_camera_that_moves_measures_depth_path_and_lens(scene) -> None:  # noqa: F811
    words = describe(told(scene, shot("parallax")))
    assert words.verdict == "Usable: the camera moves, so depth and path are measured."
    assert words.camera == ("It moves through the scene: it goes 4 units and turns by up to 0.0 degrees.",)
    assert [line.split()[0:2] for line in words.measured] == [
        ["Depth", "rests"],
        ["The", "path"],
        ["The", "lens,"],
    ]
    assert "in 2 of 2 windows" in words.measured[0]
    assert len(words.assumed) == 1
    assert "one unknown factor" in words.assumed[0]
    assert words.unusable == ()


@pytest.mark.parametrize(("kind", "said"), [("rotation", "only turns"), ("static", "stands still")])
def test_a_camera_that_does_not_move_leaves_depth_a_guess(scene, kind, said) -> None:  # noqa: F811
    words = describe(told(scene, shot(kind)))
    assert said in words.verdict
    assert "depth is a guess" in words.verdict
    assert said in words.camera[0]
    assert any("Depth is the network's guess" in line for line in words.assumed)
    assert not any("Depth" in line for line in words.measured)


def test_turning_is_the_largest_angle_from_the_first_frame(scene) -> None:  # noqa: F811
    c2w = np.array(scene.c2w)
    angle = np.radians([0, 10, 30, 20, 5])
    c2w[:, 0, 0], c2w[:, 0, 2], c2w[:, 2, 0], c2w[:, 2, 2] = (
        np.cos(angle),
        np.sin(angle),
        -np.sin(angle),
        np.cos(angle),
    )
    assert "turns by up to 30.0 degrees" in describe(told(scene, shot("parallax"), c2w=c2w)).camera[0]


def test_shots_differ_and_some_are_lost(scene) -> None:  # noqa: F811
    words = describe(
        told(scene, shot("parallax", 0, 3), shot("unknown", 3, 5), diagnostics={"relative_windows": [1]})
    )
    assert "in a part of the video" in words.verdict
    assert "but for what is listed under 'Leave out'" in words.verdict
    assert words.camera[1] == "Frames 3-4: it moves in a way that no camera path explains."
    assert words.unusable == ("No camera explains the motion of frames 3-4.",)
    assert "in 1 of 2 windows" in words.measured[0]
    assert "In 1 of 2 windows depth is the network's guess" in words.assumed[0]


def test_what_was_given_is_no_assumption(scene) -> None:  # noqa: F811
    given = {"config": {"fov_deg": 60.0}}
    metric = {"metric": {"statement": "the scale is that of poses.txt"}}
    words = describe(told(scene, shot("parallax"), provenance=given, diagnostics=metric, scale_kind="metric"))
    assert any("The lens was given" in line for line in words.measured)
    assert "Lengths are metres (the scale is that of poses.txt)." in words.measured
    assert words.assumed == ()
    guessed = describe(told(scene, shot("parallax", focal_assumed=True), scale_kind="metric"))
    assert any("the motion hardly tells it" in line for line in guessed.assumed)
    assert "Lengths are metres as the network estimates them." in guessed.assumed


def test_a_lens_that_zooms_has_two_views(scene) -> None:  # noqa: F811
    K = np.repeat(np.array(scene.intrinsics, np.float64)[:1], scene.num_frames, 0)
    one = describe(told(dataclasses.replace(scene, intrinsics=K), shot("parallax"))).measured
    assert any(line.startswith("The lens, from tracked points: 41.1 degrees") for line in one)
    zoomed = K.copy()
    zoomed[-1, [0, 1], [0, 1]] *= 2
    both = describe(told(dataclasses.replace(scene, intrinsics=zoomed), shot("parallax"))).measured
    near, far = (float(np.degrees(2 * np.arctan(0.5 * scene.size[1] / f))) for f in zoomed[[-1, 0], 0, 0])
    assert f"between {near:.1f} and {far:.1f} degrees across the width" in " ".join(both)


def test_doubtful_and_useless_frames_are_named(scene) -> None:  # noqa: F811
    bad = told(scene, shot("parallax"), reliable=np.array([1, 0, 0, 0, 1], bool),
               diagnostics={"frames_without_picture": [4], "dropped": [{"window": 1, "what": "points", "why": "-"}]},
    )  # fmt: skip
    words = describe(bad)
    assert words.doubtful
    assert words.verdict == "Doubtful: only 2 of 5 frames are reliable."
    assert words.unusable[:2] == (
        "3 of 5 frames are unreliable: 1-3.",
        "1 of 5 frames show no usable picture: 4.",
    )
    assert "windows 1 were left out" in words.unusable[2]
    assert (
        describe(told(scene, shot("parallax"), c2w=None))
        .camera[0]
        .startswith("This result has no camera poses")
    )


def test_ranges() -> None:
    assert ranges([0, 1, 2, 3, 7]) == "0-3, 7"
    assert ranges([]) == ""
