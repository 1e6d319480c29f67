"""The world of a stored result is the first camera of each scene, whatever world the cameras come in."""

import json

import numpy as np
import pytest
import torch

import geo4d
from geo4d.geometry.poses import first_camera_world, inverse
from geo4d.results.manifest import MANIFEST
from geo4d.results.reader import load_result
from geo4d.results.writer import StoreWriter
from geo4d.types import FrameMaps
from tests.support.poses import se3_exp
from tests.support.truth import BoxWorld, TruthPredictor


def cameras(num_frames: int = 6) -> torch.Tensor:
    return se3_exp(0.4 * torch.randn(num_frames, 6, generator=torch.Generator().manual_seed(5)).double())


def written(folder, **options):
    writer = StoreWriter(folder, 6, (4, 5), "float32")
    for t in range(6):
        writer.write(FrameMaps(t, torch.ones(4, 5), torch.ones(4, 5)))
    per_frame = {
        "intrinsics": np.tile(np.diag([7.0, 7.0, 1.0]), (6, 1, 1)),
        "times_s": np.arange(6) / 10,
        "source_frames": np.arange(6),
        "scene": np.array([0, 0, 0, 1, 1, 1]),
        "reliable": np.ones(6, bool),
        "c2w": cameras().numpy(),
    }
    rest = {"scale_kind": "scale", "source": {"name": "array", "sha256": "0"}, "provenance": {}}
    writer.finish(per_frame, rest, {}, **options)
    return load_result(folder), json.loads((folder / MANIFEST).read_text())["world"]


def test_every_scene_starts_at_the_identity_and_keeps_its_relative_motion(tmp_path) -> None:
    result, world = written(tmp_path / "r")
    assert world == "the first camera of each scene"
    for first in (0, 3):
        assert np.array_equal(result.c2w[first], np.eye(4))
        for t in range(first, first + 3):
            expected = np.linalg.inv(cameras().numpy()[first]) @ cameras().numpy()[t]
            np.testing.assert_allclose(result.c2w[t], expected, atol=1e-6)


def test_a_given_world_stays_and_says_so(tmp_path) -> None:
    result, world = written(tmp_path / "r", world="given")
    assert world == "that of the given poses"
    np.testing.assert_allclose(result.c2w, cameras().numpy(), atol=1e-6)


def test_first_camera_world_of_one_scene() -> None:
    c2w = cameras()
    moved = first_camera_world(c2w)
    assert torch.equal(moved[0], torch.eye(4).double())
    torch.testing.assert_close(inverse(moved[2]) @ moved[4], inverse(c2w[2]) @ c2w[4])


@pytest.mark.parametrize("size", [(48, 80), (60, 44)])
def test_a_run_gives_the_first_camera_and_square_pixels_of_the_source(size) -> None:
    """The truth's maps are squeezed; one frame in the middle is black."""
    world = BoxWorld((24, 40))
    rgb = torch.stack([world.rgb(t) for t in range(9)])
    video = torch.nn.functional.interpolate(rgb.permute(0, 3, 1, 2), size, mode="bilinear").permute(
        0, 2, 3, 1
    )
    video[4] = 0.0
    result = geo4d.reconstruct(video, model=TruthPredictor(world, length=8, stride=4), output_size="model")
    assert np.array_equal(result.c2w[0], np.eye(4))
    focal = result.intrinsics[:, [0, 1], [0, 1]] * (np.array(size[::-1]) / (40, 24))
    np.testing.assert_allclose(focal[:, 0], focal[:, 1], rtol=2e-3)
    assert result.reliable.tolist() == [True] * 4 + [False] + [True] * 4
    assert result.diagnostics["frames_without_picture"] == [4]
    assert np.nanmax(result.confidence[4]) <= 0.02
