"""One plane that three cameras see, and checks of readers that were given it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from geo4d.datasets.base import Sequence
from geo4d.datasets.catalogue import find_sequences, load_ground_truth, load_reader
from geo4d.errors import InputError

H, W, T = 6, 8, 3
NORMAL, OFFSET = np.array([0.2, -0.3, -1.0]), -5.0
SKY, HOLE = (0, 2), (1, 3)


@dataclass
class Truth:
    """Three views of the plane ``NORMAL . X = OFFSET``.

    Attributes:
        c2w: [T, 4, 4], OpenCV axes.
        intrinsics: [3, 3], pixel centres at +0.5.
    """

    c2w: np.ndarray
    intrinsics: np.ndarray

    def rays(self) -> np.ndarray:
        x, y = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
        k = self.intrinsics
        return np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones_like(x)], -1)

    def depth(self, t: int) -> np.ndarray:
        rays = self.rays() @ self.c2w[t, :3, :3].T
        return (OFFSET - self.c2w[t, :3, 3] @ NORMAL) / (rays @ NORMAL)


def turned(about: int, angle: float) -> np.ndarray:
    a, b = [axis for axis in range(3) if axis != about]
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


def truth(fx=10.0, fy=11.0, cx=4.0, cy=3.0) -> Truth:
    c2w = np.tile(np.eye(4), (T, 1, 1))
    for t in range(T):
        c2w[t, :3, :3] = turned(1, 0.1 * t) @ turned(0, -0.07 * t) @ turned(2, 0.05 * t)
        c2w[t, :3, 3] = [0.3 * t, -0.1 * t, 0.2 * t]
    return Truth(c2w, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))


def rgb(t: int) -> np.ndarray:
    return np.full((H, W, 3), (40 * t, 80, 120), np.uint8)


def load_all(name: str, root) -> list[Sequence]:
    reader = load_reader(name)
    return [reader.load(path, key) for key, path in find_sequences(reader, root).items()]


def world_points(sequence: Sequence) -> np.ndarray:
    """[N, 3] of all known pixels of all frames, with the sequence's own cameras."""
    points = []
    for t in range(sequence.num_frames):
        depth = np.asarray(sequence.depth[t], np.float64)
        y, x = np.nonzero(np.isfinite(depth))
        pixels = np.stack([x + 0.5, y + 0.5, np.ones(len(x))], -1)
        in_camera = pixels @ np.linalg.inv(sequence.intrinsics[t]).T * depth[y, x, None]
        points.append(in_camera @ sequence.c2w[t, :3, :3].T + sequence.c2w[t, :3, 3])
    return np.concatenate(points)


def check_plane(
    name: str,
    root: Path,
    known: Truth,
    *,
    marks_sky: bool,
    tolerance: float,
    step_s: float | None,
    count: int = T,
    with_poses: bool = True,
) -> None:
    """What a reader gives equals the truth, and all points lie on the one plane of the truth's world.

    Args:
        known: what the tree was written from.
        marks_sky: whether the layout tells the sky from what is unknown.
        tolerance: of depth, relative.
        step_s: between frames; None for sequences of one picture.
        count: frames of a sequence.
    """
    sequences = load_all(name, root)
    assert [sequence.num_frames for sequence in sequences] == [count] * (T // count)
    shown = [(sequence, t) for sequence in sequences for t in range(count)]
    for number, (sequence, t) in enumerate(shown):
        assert sequence.dataset == name
        depth = sequence.depth[t]
        assert depth.dtype == np.float32
        assert np.isnan(depth[HOLE])
        assert np.isposinf(depth[SKY]) == marks_sky
        finite = np.isfinite(depth)
        assert finite.sum() == H * W - 1 - marks_sky
        np.testing.assert_allclose(depth[finite], known.depth(number)[finite], rtol=tolerance)
        np.testing.assert_allclose(sequence.intrinsics[t], known.intrinsics, rtol=1e-6, atol=1e-6)
        if name != "hypersim":
            np.testing.assert_allclose(sequence.rgb[t], rgb(number) / 255, atol=0.02)
        assert all(path.is_file() for path in sequence.files)
    if step_s is not None:
        np.testing.assert_allclose(np.diff(sequences[0].times_s), step_s)
    if not with_poses:
        assert sequences[0].c2w is None
        return
    poses = np.concatenate([sequence.c2w for sequence in sequences])
    np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1, atol=1e-6)
    for t in range(T):  # whatever the world's axes are, the motion between frames is that of the truth
        expected = np.linalg.inv(known.c2w[0]) @ known.c2w[t]
        np.testing.assert_allclose(np.linalg.inv(poses[0]) @ poses[t], expected, atol=2e-6)
    # By way of the first camera into the truth's world, where all points lie on the plane.
    points = np.concatenate([world_points(sequence) for sequence in sequences])
    points = (points - poses[0, :3, 3]) @ poses[0, :3, :3]
    points = points @ known.c2w[0, :3, :3].T + known.c2w[0, :3, 3]
    np.testing.assert_allclose(points @ NORMAL, OFFSET, rtol=3 * tolerance)


def check_recognised(name: str, root: Path) -> None:
    """The layout is told from all others; where it holds several sequences (three of one picture), that is said.

    Args:
        root: of the tree, or the folder of one sequence in it: both should be recognised.
    """
    if len(load_all(name, root)) > 1:
        with pytest.raises(InputError, match="found 3"):
            load_ground_truth(root)
    else:
        assert load_ground_truth(root).dataset == name


def check_lost(name: str, root: Path, pattern: str, message: str) -> None:
    """Without the files of a pattern the error names what is missing and where the data set is."""
    victims = list(root.glob(pattern))
    assert victims
    for path in victims:
        path.unlink()
    with pytest.raises(InputError, match=message) as error:
        load_all(name, root)
    assert load_reader(name).url in str(error.value)


def check_truncated(name: str, root: Path, pattern: str) -> None:
    """A file that is cut in half is named."""
    victim = next(root.glob(pattern))
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    with pytest.raises(InputError, match=victim.name.replace(".", r"\.")):
        [np.asarray(sequence.depth) for sequence in load_all(name, root)]
