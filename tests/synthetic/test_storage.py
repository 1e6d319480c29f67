import json

import numpy as np
import pytest
import torch

from geo4d.errors import OutputError
from geo4d.formats.arrays import load_npz
from geo4d.formats.cameras import load_tum
from geo4d.formats.images import load_image, load_png16
from geo4d.synthetic.render import make_scene, render_clip
from geo4d.synthetic.scene import SceneConfig
from geo4d.synthetic.storage import save_clip, save_scene


@pytest.fixture(scope="module")
def scene():
    return make_scene(SceneConfig(seed=4, kind="street", camera="dolly", num_frames=3))


def test_folder_holds_the_clip(scene, tmp_path):
    clip = render_clip(scene, (18, 30))
    save_clip(clip, tmp_path / "clip")
    about = json.loads((tmp_path / "clip" / "clip.json").read_text())
    assert (about["num_frames"], about["height"], about["width"], about["fps"]) == (3, 18, 30, 12.0)
    assert about["scene"]["seed"] == 4
    times, c2w = load_tum(tmp_path / "clip" / "poses.txt")
    assert np.allclose(times, clip.times_s.numpy())
    assert np.abs(c2w - clip.c2w.numpy()).max() < 1e-5
    intrinsics = np.loadtxt(tmp_path / "clip" / "intrinsics.txt")
    assert np.allclose(intrinsics, clip.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]].numpy())
    for t in range(3):
        name = f"{t:06d}"
        depth = load_npz(tmp_path / "clip" / "depth" / f"{name}.npz")["depth"]
        assert depth.dtype == np.float32
        assert np.array_equal(depth, clip.depth[t].numpy())
        dynamic = load_png16(tmp_path / "clip" / "dynamic" / f"{name}.png") > 0
        assert np.array_equal(dynamic, clip.dynamic[t].numpy())
        rgb = load_image(tmp_path / "clip" / "rgb" / f"{name}.png")
        assert np.array_equal(np.round(rgb * 255), clip.rgb[t].numpy())


def test_half_precision_and_no_pictures(scene, tmp_path):
    clip = render_clip(scene, (18, 30))
    save_clip(clip, tmp_path / "clip", half=True, with_rgb=False)
    assert not (tmp_path / "clip" / "rgb").exists()
    depth = torch.from_numpy(load_npz(tmp_path / "clip" / "depth" / "000001.npz")["depth"])
    assert depth.dtype == torch.float16
    torch.testing.assert_close(depth.float(), clip.depth[1], rtol=1e-3, atol=0)


def test_drawing_into_a_folder_is_the_same(scene, tmp_path):
    save_clip(render_clip(scene, (18, 30)), tmp_path / "a")
    save_scene(scene, (18, 30), tmp_path / "b")
    names = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(names) == 3 * 3 + 3
    for name in names:
        if name.suffix != ".npz":  # zip entries carry the time of writing
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_existing_folder_is_kept(scene, tmp_path):
    clip = render_clip(scene, (18, 30))
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        save_clip(clip, tmp_path / "clip")
    assert (tmp_path / "clip" / "mine.txt").read_text() == "mine"
    save_clip(clip, tmp_path / "clip", overwrite=True)
    assert not (tmp_path / "clip" / "mine.txt").exists()
