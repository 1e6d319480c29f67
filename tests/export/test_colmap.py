import dataclasses

import numpy as np

from geo4d.export import ExportConfig, save
from geo4d.formats.colmap import load_colmap
from geo4d.formats.images import load_image
from tests.readers_of_targets import colmap

SIZE = (18, 25)


def test_colmap_loads_in_pycolmap_and_points_reproject(tmp_path, scene) -> None:
    import pycolmap

    save(scene, tmp_path / "colmap", "colmap", ExportConfig(points_per_frame=60))
    theirs = pycolmap.Reconstruction(str(tmp_path / "colmap/sparse/0"))
    assert theirs.num_images() == 4
    assert theirs.num_points3D() == 240
    worst = 0.0
    lengths = []
    for point in theirs.points3D.values():
        lengths.append(point.track.length())
        for element in point.track.elements:
            image = theirs.images[element.image_id]
            seen = image.points2D[element.point2D_idx]
            assert seen.point3D_id in theirs.points3D
            worst = max(worst, float(np.abs(image.project_point(point.xyz) - seen.xy).max()))
    assert worst < 0.01
    assert np.mean(lengths) > 2  # static wall: points are seen from several frames
    np.testing.assert_allclose(load_colmap(tmp_path / "colmap/sparse/0").c2w, scene.c2w, atol=1e-6)
    assert load_image(tmp_path / "colmap/images/frame_000000.png").shape == (*SIZE, 3)


def test_colmap_masks_and_points_leave_out_what_moves(tmp_path, filmed) -> None:
    save(filmed, tmp_path / "colmap", "colmap", ExportConfig(points_per_frame=60))
    model = colmap.load(tmp_path / "colmap")
    assert {image.name for image in model.images.values()} == {f"frame_{t:06d}.png" for t in range(4)}
    for number, image in enumerate(sorted(model.images.values(), key=lambda image: image.name)):
        mask = colmap.mask(tmp_path / "colmap", image.name)
        np.testing.assert_array_equal(mask, filmed.dynamic[number] < 0.5)
        np.testing.assert_allclose(colmap.world_from_camera(image), filmed.c2w[number], atol=1e-6)
    assert model.num_points3D() == 240
    normal = np.array([-0.3, 0.1, 1.0])
    for point in model.points3D.values():  # all on the wall, none on the patch before it
        assert abs(point.xyz @ normal - 2.5) < 1e-4
        assert point.track.length() >= 1
    save(dataclasses.replace(filmed, dynamic=None), tmp_path / "still", "colmap")
    assert not (tmp_path / "still/masks").exists()
