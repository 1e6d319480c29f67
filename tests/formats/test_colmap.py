import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.colmap import ColmapModel, load_colmap, save_colmap


def colmap_model(c2w: np.ndarray, intrinsics: np.ndarray, num_points: int = 12) -> ColmapModel:
    rng = np.random.default_rng(0)
    zoomed = intrinsics.copy()
    zoomed[0, 0] = 70
    return ColmapModel(
        names=[f"frame {i}.png" if i == 1 else f"frame_{i}.png" for i in range(5)],
        intrinsics=np.stack([intrinsics] * 4 + [zoomed]),
        sizes=[(32, 41)] * 5,
        c2w=c2w,
        points=rng.normal(size=(num_points, 3)),
        colours=rng.integers(0, 256, (num_points, 3)).astype(np.uint8),
        point_errors=rng.random(num_points),
        track_points=np.repeat(np.arange(num_points), 2),
        track_images=np.tile([0, 4], num_points),
        track_pixels=rng.random((2 * num_points, 2)) * 30,
    )


@pytest.mark.parametrize("binary", [True, False])
def test_colmap_round_trip_and_pycolmap(tmp_path, c2w, intrinsics, binary) -> None:
    import pycolmap

    model = colmap_model(c2w, intrinsics)
    if not binary:
        model.names[1] = "frame_1.png"
    save_colmap(tmp_path, model, binary=binary, text=not binary)
    read = load_colmap(tmp_path)
    order = np.argsort(model.names)
    assert read.names == sorted(model.names)
    np.testing.assert_allclose(read.c2w, c2w[order], atol=1e-9)
    np.testing.assert_allclose(read.intrinsics, model.intrinsics[order])
    np.testing.assert_allclose(read.points, model.points)
    np.testing.assert_array_equal(read.colours, model.colours)
    assert len(read.track_points) == len(model.track_points)

    theirs = pycolmap.Reconstruction(str(tmp_path))
    assert theirs.num_images() == 5
    assert theirs.num_points3D() == 12
    assert theirs.num_cameras() == 2
    for image in theirs.images.values():
        row = model.names.index(image.name)
        np.testing.assert_allclose(image.cam_from_world().matrix(), np.linalg.inv(c2w[row])[:3], atol=1e-6)
        np.testing.assert_allclose(image.camera.calibration_matrix(), model.intrinsics[row])
    for point in theirs.points3D.values():
        assert point.track.length() == 2


def test_colmap_without_points_or_with_unsupported_cameras(tmp_path, c2w, intrinsics) -> None:
    empty = ColmapModel(["a.png"], intrinsics[None], [(32, 41)], c2w[:1])
    save_colmap(tmp_path / "e", empty)
    assert load_colmap(tmp_path / "e").points.shape == (0, 3)
    with pytest.raises(InputError, match="found nothing"):
        load_colmap(tmp_path / "none")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/cameras.txt").write_text("1 FISHEYE 41 32 1 2 3 4 5\n")
    (tmp_path / "t/images.txt").write_text("1 1 0 0 0 0 0 0 1 a.png\n\n")
    with pytest.raises(InputError, match="not supported"):
        load_colmap(tmp_path / "t")
    (tmp_path / "e/sparse").mkdir()
    data = (tmp_path / "e/images.bin").read_bytes()
    (tmp_path / "e/images.bin").write_bytes(data[:-6])
    with pytest.raises(InputError, match="malformed"):
        load_colmap(tmp_path / "e")
