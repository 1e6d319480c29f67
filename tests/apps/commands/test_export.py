import cv2
import numpy as np
import pytest
import torch

from geo4d.apps.cli import main
from geo4d.results.workspace import Workspace
from geo4d.results.writer import StoreWriter
from geo4d.types import FrameMaps
from geo4d.video.io import Video
from tests.readers_of_targets import colmap, gltf, ply
from tests.video.clips import encode, pictures

SIZE = (24, 32)


@pytest.fixture
def result(tmp_path):
    """A stored result with two frames and confidences far below one half."""
    rng = np.random.default_rng(0)
    with Workspace(tmp_path / "result", {}, overwrite=False) as work:
        writer = StoreWriter(work.result, 2, SIZE, "float32")
        for t in range(2):
            depth = torch.full(SIZE, 2.0)
            confidence = torch.from_numpy(0.02 + 0.06 * rng.random(SIZE)).float()
            writer.write(FrameMaps(t, depth, confidence, torch.zeros(SIZE)), None)
        per_frame = {
            "intrinsics": np.tile(np.float32([[30, 0, 16], [0, 30, 12], [0, 0, 1]]), (2, 1, 1)),
            "times_s": np.array([0.0, 0.1]),
            "source_frames": np.arange(2),
            "c2w": np.tile(np.eye(4, dtype=np.float32), (2, 1, 1)),
        }
        manifest = {"scale_kind": "scale", "has_poses": True, "source": {}, "provenance": {}}
        writer.finish(per_frame, manifest, {})
        work.publish()
    return tmp_path / "result"


def test_the_command_prints_the_share_that_it_keeps(result, tmp_path, capsys) -> None:
    assert main(["export", str(result), "--format", "ply", "-o", str(tmp_path / "a.ply"), "--up", "z"]) == 0
    captured = capsys.readouterr()
    assert "points from 85 % of the pixels with depth" in captured.err
    assert captured.out.startswith("wrote ")
    assert len(ply.load(tmp_path / "a.ply")["x"]) == pytest.approx(0.85 * 2 * 24 * 32, abs=2)
    assert main(["export", str(result), "--format", "glb", "-o", str(tmp_path / "a.glb"), "--per-frame"]) == 0
    assert len(gltf.load(tmp_path / "a.glb")[1]) == 2


def test_the_command_says_which_option_leaves_nothing(result, tmp_path, capsys) -> None:
    target = tmp_path / "a.glb"
    words = ["export", str(result), "--format", "glb", "-o", str(target), "--min-confidence", "0.5"]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "no point is left" in message
    assert "--min-confidence" in message
    assert not target.exists()
    words[-1] = "0.06"
    assert main(words) == 0
    assert "WARNING: only points from" in capsys.readouterr().err
    words[-1] = "5"
    assert main(words) == 2
    assert "[0, 1]" in capsys.readouterr().err


def test_help_lists_formats_options_and_an_example(capsys) -> None:
    assert main(["export", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "geo4d export OUT --format usd -o shot.usdc",
        "usd scene with camera, lens, points and plate (extra usd); .usdc .usdz .usda .usd",
        "-o PATH",
        "--reference X1,Y1,X2,Y2,FRAME,METRES",
        "--up {camera,y,z}",
    ):
        assert words in text
    assert "None}|" not in text


def test_overwrite_scale_reference_and_suffix(result, tmp_path, capsys) -> None:
    path = tmp_path / "a.npz"
    words = ["export", str(result), "--format", "npz", "-o", str(path)]
    assert main(words) == 0
    assert main(words) == 4
    assert "pass --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--scale", "3"]) == 0
    with np.load(path) as data:
        np.testing.assert_allclose(data["depth"], 6)
    assert (
        main([*words, "--overwrite", "--reference", "1.5,2.5,31.5,2.5,1,4"]) == 0
    )  # 30 px at 2 / 30 each: 2 long
    with np.load(path) as data:
        np.testing.assert_allclose(data["depth"], 4, rtol=1e-6)
        assert str(data["scale_kind"]) == "metric"
    assert main([*words, "--overwrite", "--reference", "1,2"]) == 2
    assert main([*words, "--overwrite", "--scale", "0"]) == 2
    assert main(["export", str(result), "--format", "glb", "-o", str(tmp_path / "x.ply")]) == 2
    assert "for the format glb" in capsys.readouterr().err
    assert not (tmp_path / "x.ply").exists()


def test_images_of_the_source_are_decoded_again(tmp_path, capsys) -> None:
    """A clip of 64x48 with maps of 32x24; another clip in its place is refused."""
    film = encode(tmp_path / "a.mp4", pictures(2))
    with Workspace(tmp_path / "result", {}, overwrite=False) as work:
        writer = StoreWriter(work.result, 2, SIZE, "float32")
        for t in range(2):
            writer.write(FrameMaps(t, torch.full(SIZE, 2.0), torch.ones(SIZE), torch.zeros(SIZE)), None)
        per_frame = {
            "intrinsics": np.tile(np.float32([[30, 0, 16], [0, 30, 12], [0, 0, 1]]), (2, 1, 1)),
            "times_s": np.array([0.0, 0.1]),
            "source_frames": np.arange(2),
            "c2w": np.tile(np.eye(4, dtype=np.float32), (2, 1, 1)),
        }
        source = {"path": str(film), "sha256": Video(film).sha256(), "reading": {}}
        writer.finish(per_frame, {"scale_kind": "scale", "source": source, "provenance": {}}, {})
        work.publish()
    words = ["export", str(tmp_path / "result"), "--format", "colmap", "--images", "source", "-o"]
    assert main([*words, str(tmp_path / "c"), "--most-points", "50"]) == 0
    model = colmap.load(tmp_path / "c")
    np.testing.assert_array_equal(next(iter(model.cameras.values())).params, [60, 60, 32, 24])
    assert model.num_points3D() == 50
    for t in range(2):
        picture = cv2.imread(str(tmp_path / f"c/images/frame_{t:06d}.png"))[..., ::-1]
        np.testing.assert_array_equal(picture, np.round(255 * Video(film).read([t])[0].numpy()))
    capsys.readouterr()
    encode(film, pictures(2)[::-1])
    assert main([*words, str(tmp_path / "d")]) == 3
    assert "its content has changed" in capsys.readouterr().err
    film.unlink()
    assert main([*words, str(tmp_path / "d")]) == 3
    assert "a.mp4 is not there any more; put it back, or take --images maps" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()
