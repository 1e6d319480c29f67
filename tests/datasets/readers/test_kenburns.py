import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.images import save_image
from tests.support.plane_layouts import save_map
from tests.support.planes import load_all, world_points


def test_four_corners_of_a_ken_burns_capture(tmp_path):
    size, focal = 8, 4 / np.tan(np.deg2rad(60) / 2)
    x, y = np.meshgrid(np.arange(size) + 0.5 - 4, np.arange(size) + 0.5 - 4)
    scene = tmp_path / "asdf-flying"
    scene.mkdir()
    (scene / "00001-meta.json").write_text('{"intSample": 1, "fltFov": 60}')
    for view, (right, down) in {"bl": (0, 0), "br": (20, 0), "tl": (0, -20), "tr": (20, -20)}.items():
        # The plane 0.1 x - 0.2 y + z = 300, seen from (right, down, 0).
        depth = (300 - 0.1 * right + 0.2 * down) / (0.1 * x / focal - 0.2 * y / focal + 1)
        depth[0, 0] = 30000
        save_map(tmp_path / "asdf-flying-depth" / f"00001-{view}-depth.exr", depth)
        save_image(scene / f"00001-{view}-image.png", np.full((size, size, 3), 90, np.uint8))
    sequence = load_all("kenburns", tmp_path)[0]
    assert sequence.num_frames == 4
    assert np.isnan(sequence.depth[2][0, 0])
    points = world_points(sequence)
    np.testing.assert_allclose(points @ [0.1, -0.2, 1], 300, rtol=1e-5)
    # Every step goes along one side of the square.
    np.testing.assert_allclose(np.linalg.norm(np.diff(sequence.c2w[:, :3, 3], axis=0), axis=1), 20)
    (scene / "00001-tr-image.png").unlink()
    with pytest.raises(InputError, match="00001-tr-image"):
        load_all("kenburns", tmp_path)
