"""How often a run decodes a frame, counted at the decoder."""

import numpy as np
import pytest

import geo4d
from geo4d.config import RunConfig
from geo4d.run.first_pass import first_look, kept_sizes, list_shots, sweep_size
from geo4d.video.containers import VideoFile
from geo4d.video.frames import FrameFiles
from geo4d.video.io import Video
from tests.support.truth import BoxWorld, TruthPredictor
from tests.video.clips import encode

FRAMES = 26


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def world_clip(tmp_path):
    world = BoxWorld((96, 160))
    frames = np.stack([(world.rgb(t) * 255).round().byte().numpy() for t in range(FRAMES)])
    return frames, encode(tmp_path / "clip.mp4", frames, gop=6)


@pytest.fixture
def decoded(monkeypatch):
    """Number of frames that came out of the decoder so far; few are kept in memory, as of a long clip."""
    monkeypatch.setattr("geo4d.video.io.CACHE_FRAMES", 8)
    count = [0]
    whole, read = VideoFile._whole, FrameFiles.read

    def counted(self, packet):
        for frame in whole(self, packet):
            count[0] += 1
            yield frame

    def counted_read(self, index):
        count[0] += 1
        return read(self, index)

    monkeypatch.setattr(VideoFile, "_whole", counted)
    monkeypatch.setattr(FrameFiles, "read", counted_read)
    return count


def predictor():
    return TruthPredictor(
        BoxWorld((24, 40)), length=8, stride=4, noise=0.005, sees_motion=False, evidence="motion"
    )


def test_a_video_is_decoded_three_times(world_clip, decoded, tmp_path):
    _, path = world_clip
    result = geo4d.reconstruct(path, tmp_path / "out", model=predictor(), keep_windows=True)
    assert result.num_frames == FRAMES
    assert decoded[0] <= 3 * FRAMES
    # what was kept on the way is gone
    assert not list((tmp_path / "out").rglob("*pictures_*"))


def test_pictures_are_read_three_times(world_clip, decoded, tmp_path):
    import cv2

    frames, _ = world_clip
    (tmp_path / "frames").mkdir()
    for t, picture in enumerate(frames):
        cv2.imwrite(str(tmp_path / "frames" / f"{t:03d}.png"), picture[..., ::-1])
    geo4d.reconstruct(tmp_path / "frames", model=predictor())
    assert decoded[0] <= 3 * FRAMES


def test_a_run_that_looks_at_no_shots_looks_at_nothing(world_clip, decoded):
    _, path = world_clip
    config = RunConfig(split_shots=False)
    assert first_look(config) is None
    with Video(path, look=None) as clip:
        before = decoded[0]
        assert list_shots(clip, config, lambda *step: None) == [(0, FRAMES)]
        assert decoded[0] == before
    assert first_look(RunConfig(split_shots=False, wide_windows=("loops",))).looks is not None


def test_shots_are_found_in_what_opening_has_not_shown(world_clip):
    frames, path = world_clip
    steps = []
    for source in (path, np.concatenate([frames, 255 - frames[:, ::-1] // 3])):
        look = first_look(RunConfig())
        with Video(source, look=look) as clip:
            scenes = list_shots(clip, RunConfig(), lambda *step: steps.append(step), look)
            assert scenes[-1][1] == clip.num_frames
            assert steps[-1] == ("find shots", clip.num_frames, clip.num_frames)
    assert scenes == [(0, FRAMES), (FRAMES, 2 * FRAMES)]


def test_sizes_are_named_once():
    assert sweep_size((192, 320)) == (128, 213)
    assert sweep_size((96, 160)) == (128, 213)
    height, width = sweep_size((320, 192))
    assert (height, width) == (213, 128)
    assert kept_sizes((180, 320), (128, 213)) == ((180, 320), (128, 213))


def test_shots_are_looked_for_only_when_asked():
    film = np.concatenate([np.full((25, 24, 32, 3), 20, np.uint8), np.full((15, 24, 32, 3), 200, np.uint8)])
    for config, wanted in ((RunConfig(), [(0, 25), (25, 40)]), (RunConfig(split_shots=False), [(0, 40)])):
        look = first_look(config)
        with Video(film, look=look) as clip:
            assert list_shots(clip, config, lambda *step: None, look) == wanted
