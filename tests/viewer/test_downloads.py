"""Files that the viewer sends."""

import dataclasses
import io
import struct

import numpy as np
import pytest

from geo4d.viewer.downloads import KINDS, export_bytes, png_bytes
from tests.viewer.test_viser_view import scene  # noqa: F401


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_a_file_of_its_format(scene, kind: str) -> None:  # noqa: F811
    two = dataclasses.replace(scene, scene=np.array([0, 0, 0, 0, 1, 1]))
    name, content = export_bytes(two, kind, frame=5, scene=1, min_confidence=0.0)
    if name.endswith(".ply"):
        count = int(content.split(b"element vertex ")[1].split()[0])
        frames = 1 if "frame_5" in name else 2  # those of the scene
        assert 0.8 * frames * 48 * 64 < count <= frames * 48 * 64
    elif name.endswith(".glb"):
        assert struct.unpack("<4sII", content[:12])[::2] == (b"glTF", len(content))
    else:
        assert np.loadtxt(io.BytesIO(content)).shape == (2, 8)


def test_the_threshold_is_that_of_the_slider(scene) -> None:  # noqa: F811
    scene.confidence[:, :24] = 0.2
    _, content = export_bytes(scene, "points of this frame (PLY)", frame=0, scene=0, min_confidence=0.5)
    count = int(content.split(b"element vertex ")[1].split()[0])
    assert 0 < count <= 24 * 64


def test_a_picture_comes_back_as_it_was(rng) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = rng.integers(0, 255, (5, 7, 4), dtype=np.uint8)
    read = np.asarray(image.open(io.BytesIO(png_bytes(pixels))))
    np.testing.assert_array_equal(read, pixels[..., :3])
