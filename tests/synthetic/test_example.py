"""The committed example clip is what the generator draws, and its truth fits the video file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from geo4d.formats.arrays import load_npz
from geo4d.formats.cameras import load_tum
from geo4d.synthetic.render import iter_frames, make_scene
from geo4d.synthetic.scene import SceneConfig

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def about():
    return json.loads((EXAMPLES / "clip_truth" / "clip.json").read_text())


def test_truth_is_what_the_generator_draws(about):
    scene = make_scene(SceneConfig(**about["scene"]))
    times, c2w = load_tum(EXAMPLES / "clip_truth" / "poses.txt")
    assert len(times) == about["num_frames"] == scene.num_frames == 32
    assert np.abs(c2w - scene.c2w).max() < 1e-5
    for frame in iter_frames(scene, (about["height"], about["width"]), frames=(0, 31)):
        depth = load_npz(EXAMPLES / "clip_truth" / "depth" / f"{frame.index:06d}.npz")["depth"]
        stored = torch.from_numpy(depth.astype(np.float32))
        close = torch.isclose(stored, frame.depth, rtol=1e-3)
        assert close.float().mean() > 0.999  # a few pixels may lie on an edge of another machine's last bit


def test_video_has_the_frames_of_the_truth(about):
    import av

    scene = make_scene(SceneConfig(**about["scene"]))
    with av.open(str(EXAMPLES / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name in ("vp9", "libdav1d", "av1")
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == about["num_frames"]
    assert frames[0].shape == (about["height"], about["width"], 3)
    (drawn,) = iter_frames(scene, frames[0].shape[:2], frames=[10])
    error = np.abs(frames[10].astype(float) - drawn.rgb.numpy()).mean()
    other = np.abs(frames[25].astype(float) - drawn.rgb.numpy()).mean()
    assert error < 15 < other


def test_example_stays_small():
    size = sum(path.stat().st_size for path in (EXAMPLES / "clip_truth").rglob("*") if path.is_file())
    assert size < 1_000_000
    assert (EXAMPLES / "clip.mp4").stat().st_size < 500_000
