"""``check_sequence`` names what is wrong: a usual mistake made on a good sequence must be called by its name."""

from dataclasses import replace

import numpy as np
import pytest

from geo4d.datasets.base import Sequence
from geo4d.datasets.check import check_sequence
from geo4d.datasets.pieces import constant_intrinsics

H, W, T = 40, 60, 8


def turned(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])


def make() -> Sequence:
    """A camera that turns and walks before a tilted wall."""
    rng = np.random.default_rng(0)
    c2w = np.tile(np.eye(4), (T, 1, 1))
    for t in range(T):
        c2w[t, :3, :3] = turned(0.05 * t)
        c2w[t, :3, 3] = [0.25 * t, 0.05 * t, 0.12 * t]
    y, x = np.meshgrid(np.arange(H) + 0.5, np.arange(W) + 0.5, indexing="ij")
    rays = np.stack([(x - 30) / 50, (y - 20) / 50, np.ones_like(x)], -1)
    normal = np.array([0.4, -0.3, 1.0])
    depth = np.stack([(6 - c2w[t, :3, 3] @ normal) / (rays @ c2w[t, :3, :3].T @ normal) for t in range(T)])
    return Sequence(
        name="wall",
        dataset="test",
        times_s=np.arange(T) / 10,
        size=(H, W),
        rgb=rng.random((T, H, W, 3), np.float32),
        depth=depth.astype(np.float32),
        intrinsics=constant_intrinsics(T, 50, 50, 30, 20, integer_centres=False),
        c2w=c2w,
    )


def errors(sequence: Sequence) -> str:
    return "; ".join(finding.text for finding in check_sequence(sequence) if finding.level == "error")


def test_a_good_sequence_has_no_error():
    findings = check_sequence(make())
    assert not [finding for finding in findings if finding.level != "fact"]
    assert any("agrees to 0." in finding.text for finding in findings)


FLIP = np.diag([1.0, -1, -1, 1])
MISTAKES = {
    "world to camera": lambda s: replace(s, c2w=np.linalg.inv(s.c2w)),
    "OpenGL's": lambda s: replace(s, c2w=s.c2w @ FLIP),
    "centimetres": lambda s: replace(s, depth=s.depth * 100),
    "mirror": lambda s: replace(s, c2w=s.c2w @ np.diag([1.0, -1, 1, 1])),
    "rotations are off": lambda s: replace(s, c2w=s.c2w * [1, 1, 1.2, 1]),
    "millimetres": lambda s: replace(s, depth=s.depth * 1000),
    "another size": lambda s: replace(s, intrinsics=s.intrinsics / [[10], [10], [1]]),
    "no intrinsics": lambda s: replace(s, intrinsics=None),
    "no pictures": lambda s: replace(s, rgb=None),
    "unknown depth must be NaN": lambda s: replace(s, depth=np.where(s.depth > 7, -1, s.depth)),
    "do not belong together": lambda s: replace(s, depth=2 + 7 * s.rgb[..., 0]),
    "far plane": lambda s: replace(s, depth=np.where(np.arange(H)[:, None] < 8, np.float32(200), s.depth)),
    "no pixel with depth": lambda s: replace(s, depth=np.full_like(s.depth, np.nan)),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_usual_mistakes_are_called_by_their_name(words):
    assert words in errors(MISTAKES[words](make()))


def test_sky_and_holes_are_no_errors():
    sequence = make()
    depth = sequence.depth.copy()
    depth[:, :8], depth[:, 20:22] = np.inf, np.nan
    assert not errors(replace(sequence, depth=depth))
    assert not errors(replace(sequence, c2w=None))
    lost = sequence.c2w.copy()
    lost[3:5] = np.nan
    found = check_sequence(replace(sequence, c2w=lost))
    assert "2 of 8 frames have no pose" in "".join(f.text for f in found if f.level == "warning")
