import dataclasses
from html.parser import HTMLParser

import numpy as np
import pytest

from geo4d.formats.ramps import (
    INVALID_COLOUR,
    SKY_COLOUR,
    confidence_to_colours,
    depth_to_colours,
    disparity_range,
    ramp,
)
from geo4d.types import Reconstruction
from geo4d.viewer.report import report_html, save_report
from geo4d.viewer.tables import window_rows


@pytest.fixture
def scene() -> Reconstruction:
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 4, (5, 20, 30)).astype(np.float32)
    depth[:, 0], depth[:, 1] = np.inf, np.nan
    c2w = np.tile(np.eye(4), (5, 1, 1))
    c2w[:, 2, 3] = np.arange(5)
    intrinsics = np.tile(np.diag([40.0, 40, 1]), (5, 1, 1))
    intrinsics[:, 0, 0] += np.arange(5)
    return Reconstruction(
        depth=depth,
        confidence=np.ones_like(depth),
        intrinsics=intrinsics,
        times_s=np.arange(5) / 25,
        source_frames=np.arange(5),
        c2w=c2w,
        dynamic=np.zeros_like(depth),
        rgb=rng.random((5, 20, 30, 3)).astype(np.float32),
        reliable=np.array([True, True, False, False, True]),
        provenance={"source": {"name": "a <script>alert(1)</script>.mp4"}, "seed": 3},
        diagnostics={
            "windows": [[0, 1, 2], [2, 3, 4], [0, 2, 4], [0, 1, 4]],
            "evidence_windows": [1],
            "scenes": [{"windows": [0, 1], "disagreement": [0.25, 0.5], "trajectory_rpe_deg": {"1": 3.0}}],
            "dropped": [{"window": 1, "what": "disparity", "why": "noisy <b>"}],
            "seconds": {"predict": 1.5},
        },
    )


class Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.alts: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.alts.append(dict(attrs).get("alt"))
        self.outside += [
            value for key, value in attrs if key in ("src", "href") and not (value or "").startswith("data:")
        ]


def test_report_is_one_page_that_escapes_and_flags(scene, tmp_path) -> None:
    path = save_report(scene, tmp_path / "report.html")
    text = path.read_text()
    parser = Parser()
    parser.feed(text)
    assert not parser.outside
    assert "script" not in parser.tags
    assert "noisy <b>" not in text
    assert parser.tags.count("img") == 5 * 4
    assert parser.alts[:4] == [
        f"{row}, frame 0, 0.00 s" for row in ("picture", "depth", "confidence", "moving")
    ]
    assert all(parser.alts)
    assert "2 of 5 frames are unreliable: 2-3" in text
    assert "noisy &lt;b&gt;" in text
    assert "over time" in text
    assert parser.tags.count("svg") == 3


def test_the_verdict_comes_first_and_numbers_are_folded_away(scene) -> None:
    text = report_html(scene)
    order = [text.index(words) for words in ("class='verdict'", "<dt>Assumed", "<img", "<svg", "<details>")]
    assert order == sorted(order)
    assert text.index("<table") > text.index("<details>")
    assert "<details open" not in text
    assert "name='viewport'" in text
    doubtful = dataclasses.replace(scene, reliable=np.zeros(5, bool))
    assert "class='verdict doubtful'><b>Doubtful: only 0 of 5 frames are reliable." in report_html(doubtful)


def test_columns_of_windows_are_explained(scene) -> None:
    text = report_html(scene)
    assert "<b>disagreement</b>: typical distance from the neighbouring windows" in text
    assert "<b>disparity share</b>" not in text  # there is no such column here


def test_window_rows_gather_what_is_known(scene) -> None:
    first, second, *wide = window_rows(scene.diagnostics)
    assert [row["frames"] for row in (first, second, *wide)] == [
        "0-2",
        "2-4",
        "0-4, one in 2",
        "0-1, 4",
        "2-4 (motion)",
    ]
    assert first == {"window": 0, "frames": "0-2", "disagreement": 0.25}
    assert second["trajectory rpe, degrees"] == 3.0
    assert second["dropped"] == "disparity: noisy <b>"
    assert window_rows({}) == []


def test_report_without_poses_colour_or_masks(scene) -> None:
    bare = dataclasses.replace(
        scene, c2w=None, rgb=None, dynamic=None, reliable=None, scene=np.array([0, 0, 1, 1, 1])
    )
    text = report_html(bare, num_frames=3)
    assert "no camera poses; &#x27;geo4d pose&#x27; adds them" in text
    assert "2 scenes, each in a world of its own" in text
    assert text.count("<img") == 3 * 2


def test_report_of_one_frame(scene) -> None:
    one = Reconstruction(
        depth=np.full((1, 4, 4), np.nan, np.float32),
        confidence=np.zeros((1, 4, 4), np.float32),
        intrinsics=np.eye(3)[None],
        times_s=np.zeros(1),
        source_frames=np.zeros(1, int),
        c2w=np.eye(4)[None],
    )
    assert "<svg" in report_html(one)


def test_colours_mark_sky_and_invalid(scene) -> None:
    colours = depth_to_colours(scene.depth[0])
    assert tuple(colours[0, 0]) == SKY_COLOUR
    assert tuple(colours[1, 0]) == INVALID_COLOUR
    near = depth_to_colours(np.float32([[1.0, 4.0]]), (0.25, 1.0))
    assert near[0, 0, 0] > near[0, 0, 2]
    assert disparity_range(np.full((2, 2), np.nan)) == (0.0, 1.0)
    assert confidence_to_colours(np.zeros((2, 2))).shape == (2, 2, 3)
    with pytest.raises(ValueError, match="turbo"):
        ramp(np.zeros((2, 2)), "jet")
