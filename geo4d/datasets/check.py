"""Is a sequence fit to be trained on? What is missing, and whether depth, intrinsics and poses agree with each other.

Agreement is tested by moving the points of one frame into another with the sequence's own cameras. Where that fails, the
usual mistakes are tried (poses the wrong way round, OpenGL axes, another unit), and the one that fits is named.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geo4d.datasets.base import Sequence

GOOD, BAD = 0.05, 0.15
"""Median relative difference of moved and measured depth: below the first all is well, above the second it is an error.

Rendered scenes give 0.1 %, a structured-light sensor with motion capture 1 % (docs/datasets.md); moving things and
occlusions raise the median only when they fill half of the picture.
"""
METRIC_RANGE = (0.05, 1000.0)
"""Metres, in which the median depth of a sequence in metres lies."""
FAR_PLANE = 0.005
"""Share of pixels at the one largest depth that makes it a far plane."""
_POINTS = 4000


@dataclass(frozen=True)
class Finding:
    """One statement about a sequence.

    Attributes:
        level: ``error``: do not train on it; ``warning``: look at it; ``fact``.
        text: what is, what was expected, what to do.
    """

    level: Literal["error", "warning", "fact"]
    text: str


def check_sequence(sequence: Sequence, *, num_frames: int = 4) -> list[Finding]:
    """What is to be said about a sequence, from a few of its frames.

    Args:
        num_frames: frames whose maps are read, spread over the sequence.
    Raises:
        InputError: a file that is read is damaged.
    """
    findings = [_error(f"no {what}") for what in _absent(sequence)]
    findings += [Finding("warning", note) for note in sequence.notes]
    frames = np.unique(np.linspace(0, sequence.num_frames - 1, num_frames).round().astype(int))
    depth: dict[int, np.ndarray] = {}
    if sequence.depth is not None:
        depth = {int(t): np.asarray(sequence.depth[int(t)], np.float64) for t in frames}
        findings += _check_depth(sequence, np.stack(list(depth.values())))
    if sequence.rgb is not None and all(np.asarray(sequence.rgb[int(t)]).std() < 1e-4 for t in frames):
        findings.append(Finding("warning", "pictures of one colour"))
    if sequence.intrinsics is not None:
        findings += _check_intrinsics(sequence)
    if sequence.c2w is not None:
        findings += _check_poses(sequence.c2w)
    comparable = depth and sequence.c2w is not None and sequence.intrinsics is not None
    if comparable and not any(finding.level == "error" for finding in findings):
        findings += _check_agreement(sequence, depth)
    return findings


def _error(text: str) -> Finding:
    return Finding("error", text)


def _absent(sequence: Sequence) -> list[str]:
    names = {"rgb": "pictures", "depth": "depth", "intrinsics": "intrinsics"}
    return [word for name, word in names.items() if getattr(sequence, name) is None]


def _check_depth(sequence: Sequence, depth: np.ndarray) -> list[Finding]:
    finite = np.isfinite(depth)
    sky, known = float(np.isposinf(depth).mean()), float(finite.mean())
    findings = [Finding("fact", f"{known:.1%} of the pixels have depth, {sky:.1%} are the sky")]
    if not finite.any():
        return [*findings, _error("no pixel with depth in the frames that were looked at")]
    values = depth[finite]
    if values.min() <= 0:
        return [*findings, _error(f"depth of {values.min():g}: unknown depth must be NaN (or 0 in a PNG)")]
    median = float(np.median(values))
    if sequence.scale_kind == "metric" and not METRIC_RANGE[0] <= median <= METRIC_RANGE[1]:
        guess = "millimetres" if median > METRIC_RANGE[1] else "kilometres or a disparity"
        findings.append(
            _error(
                f"the median depth is {median:.4g} m, expected {METRIC_RANGE[0]} to {METRIC_RANGE[1]:g}; "
                f"are these {guess}?"
            )
        )
    largest = values.max()
    share = float((values == largest).mean())
    others = values[values < largest]
    if share > FAR_PLANE and others.size and largest > 3 * np.percentile(others, 99):
        findings.append(
            _error(
                f"{share:.1%} of the pixels have the one depth {largest:g}, far behind all others: a far plane. Sky "
                "must be +inf (in npy, npz and EXR), what is unknown NaN, or the clip trains a wall there"
            )
        )
    return findings


def _check_intrinsics(sequence: Sequence) -> list[Finding]:
    height, width = sequence.size
    matrices = np.asarray(sequence.intrinsics)
    focal, centre = matrices[:, [0, 1], [0, 1]], matrices[:, :2, 2]
    findings = []
    if not np.isfinite(matrices).all() or not ((focal > 0.2 * width) & (focal < 50 * width)).all():
        findings.append(
            _error(
                f"focal lengths {focal.min():.4g} to {focal.max():.4g} px for pictures of {width}x{height}: of "
                "another size?"
            )
        )
    if ((centre < 0) | (centre > [width, height])).any():
        findings.append(
            Finding(
                "warning",
                f"the principal point {centre[0].round(1).tolist()} lies outside the pictures of {width}x{height}",
            )
        )
    return findings


def _check_poses(c2w: np.ndarray) -> list[Finding]:
    known = np.isfinite(c2w).all(axis=(1, 2))
    findings = []
    if not known.all():
        findings.append(Finding("warning", f"{int((~known).sum())} of {len(known)} frames have no pose"))
    rotations = c2w[known, :3, :3]
    if known.any():
        off = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max()
        if off > 1e-3:
            findings.append(
                _error(f"rotations are off by {off:.3g}: rows of R R^T must be those of the identity")
            )
        elif (np.linalg.det(rotations) < 0).any():
            findings.append(
                _error("poses mirror: the determinant is -1; a left-handed world must be turned first")
            )
    return findings


def moved_error(
    sequence: Sequence, depth: dict[int, np.ndarray], poses: np.ndarray, unit: float = 1.0
) -> tuple[float, int]:
    """Median relative difference between depth moved from each frame to the next and the depth there.

    Args:
        depth: maps of some frames.
        poses: [T, 4, 4] camera to world, in place of the sequence's.
        unit: factor on depth.
    Returns:
        the median, NaN without any common pixel, and over how many pixels.
    """
    height, width = sequence.size
    matrices = np.asarray(sequence.intrinsics)
    errors = []
    frames = sorted(depth)
    for a, b in itertools.pairwise(frames):
        if not (np.isfinite(poses[a]).all() and np.isfinite(poses[b]).all()):
            continue
        y, x = np.nonzero(np.isfinite(depth[a]))
        step = max(1, len(x) // _POINTS)
        x, y = x[::step], y[::step]
        pixels = np.stack([x + 0.5, y + 0.5, np.ones(len(x))], -1)
        points = pixels @ np.linalg.inv(matrices[a]).T * (unit * depth[a][y, x, None])
        there = np.linalg.inv(poses[b]) @ poses[a]
        points = points @ there[:3, :3].T + there[:3, 3]
        seen = points[:, 2] > 0
        projected = points[seen] @ matrices[b].T
        column, row = (projected[:, :2] / projected[:, 2:]).T
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        measured = unit * depth[b][row[inside].astype(int), column[inside].astype(int)]
        z = points[seen, 2][inside]
        known = np.isfinite(measured)
        errors.append(np.abs(measured - z)[known] / z[known])
    joined = np.concatenate(errors) if errors else np.zeros(0)
    return (float(np.median(joined)) if joined.size else float("nan")), int(joined.size)


def _check_agreement(sequence: Sequence, depth: dict[int, np.ndarray]) -> list[Finding]:
    poses = np.asarray(sequence.c2w, np.float64)
    known = np.asarray(np.isfinite(poses).all(axis=(1, 2)), bool)
    frames = [t for t in sorted(depth) if known[t]]
    if len(frames) < 2:
        return []
    error, count = moved_error(sequence, depth, poses)
    if count < 100:
        return [Finding("fact", "frames that were looked at share too few pixels to compare depth and poses")]
    text = f"depth moved between frames agrees to {error:.2%} (median)"
    if error < GOOD:
        return [Finding("fact", text)]
    filled = np.where(known[:, None, None], poses, np.eye(4))
    flip = np.diag([1.0, -1, -1, 1])
    trials = {
        "the poses are world to camera": (np.linalg.inv(filled), 1.0),
        "the camera's axes are OpenGL's (y up, z backward)": (filled @ flip, 1.0),
        "the poses are world to camera with OpenGL's axes": (np.linalg.inv(flip @ filled), 1.0),
    }
    for unit, words in (
        (0.001, "millimetres"),
        (0.01, "centimetres"),
        (0.1, "tenths"),
        (10.0, "tens"),
        (100.0, "hundreds"),
    ):
        trials[f"depth is in {words} of the unit of the poses"] = (poses, unit)
    results = {
        name: moved_error(sequence, depth, np.where(known[:, None, None], trial, np.nan), unit)
        for name, (trial, unit) in trials.items()
    }
    fitting = {
        name: value
        for name, (value, pixels) in results.items()
        if pixels >= 100 and value < min(GOOD, error / 3)
    }
    if fitting:
        best = min(fitting, key=lambda name: fitting[name])
        return [_error(f"{text}, but to {fitting[best]:.2%} if {best}")]
    level: Literal["error", "warning"] = "error" if error > BAD else "warning"
    return [
        Finding(
            level, f"{text}, expected below {GOOD:.0%}: depth, intrinsics and poses do not belong together"
        )
    ]
