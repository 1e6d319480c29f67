import numpy as np
import pytest

from geo4d.config import RunConfig, make_config, parse_size
from geo4d.errors import OutputError
from geo4d.results.provenance import StageClock, peak_memory, versions
from geo4d.run.plan import align_bytes, plan_run, require_space
from geo4d.video.io import Video
from tests.support.truth import BoxWorld, TruthPredictor


def plan(num_frames=40, size=(48, 80), scenes=None, **settings):
    video = Video(np.zeros((num_frames, *size, 3), np.uint8))
    predictor = TruthPredictor(BoxWorld((24, 40)))
    return plan_run(video, predictor, RunConfig(**settings), scenes=scenes or [(0, num_frames)], device="cpu")


def test_windows_cover_every_frame_and_cross_no_cut():
    planned = plan(scenes=[(0, 18), (18, 40)])
    assert {t for window in planned.windows for t in window} == set(range(40))
    assert all(window[-1] < 18 or window[0] >= 18 for window in planned.windows)
    starts = [(window[0], window[-1]) for window in plan(window_stride=16).windows]
    assert starts == [(0, 15), (16, 31), (24, 39)]


def test_wide_windows_stay_in_their_shot_and_end_in_order():
    planned = plan(300, scenes=[(0, 100), (100, 300)], wide_windows=("dilated", "keyframes"))
    plain = plan(300, scenes=[(0, 100), (100, 300)])
    assert set(plain.windows) < set(planned.windows)
    steps = {tuple(np.diff(window)) for window in planned.windows}
    assert steps == {(step,) * 15 for step in (1, 2, 3, 12)}
    assert all(window[-1] < 100 or window[0] >= 100 for window in planned.windows)
    ends = [window[-1] for window in planned.windows]
    assert ends == sorted(ends)
    assert "wide" in "".join(planned.lines())
    assert "wide" not in "".join(plain.lines())


def test_wide_windows_need_a_model_that_takes_them():
    video = Video(np.zeros((40, 48, 80, 3), np.uint8))
    config = RunConfig(wide_windows=("dilated",))
    with pytest.raises(ValueError, match="consecutive frames only"):
        plan_run(
            video, TruthPredictor(BoxWorld((24, 40)), carries=True), config, scenes=[(0, 40)], device="cpu"
        )


@pytest.mark.parametrize(("text", "size"), [("source", (48, 80)), ("model", (24, 40)), ("30x20", (20, 30))])
def test_size_of_the_maps(text, size):
    assert plan(output_size=text).map_size == size


def test_maps_are_at_most_1024_long():
    assert plan(2, (1000, 2048)).map_size == (500, 1024)


def test_disk_grows_with_frames_and_precision():
    assert plan(80).spool_bytes > 1.8 * plan(40).spool_bytes
    assert plan(precision="float32").result_bytes > 1.5 * plan().result_bytes
    assert all("\n" not in line for line in plan().lines())


def test_memory_grows_with_frames_until_the_alignment_lies_on_disk():
    def needed(num_frames):
        return align_bytes([range(a, a + 16) for a in range(0, num_frames, 8)], num_frames)

    assert needed(200) > 1.9 * needed(100)
    assert needed(10_000) < 1.1 * needed(1000)


@pytest.mark.parametrize("text", ["big", "10", "x10", "10x", "0x5", "-3x4"])
def test_nonsense_sizes(text):
    with pytest.raises(ValueError, match="WIDTHxHEIGHT"):
        parse_size(text)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="175 degrees"):
        RunConfig(fov_deg=200)
    with pytest.raises(ValueError, match="got both"):
        RunConfig(fov_deg=50, intrinsics=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="expected some of start"):
        make_config(frame=3)


def test_space(tmp_path):
    require_space(tmp_path / "not" / "there", 1)
    with pytest.raises(OutputError, match="GiB"):
        require_space(tmp_path, 2**60)


def test_clock_counts_inner_stages_once():
    import time

    clock = StageClock()
    with clock("outer"):
        time.sleep(0.02)
        with clock("inner"):
            time.sleep(0.05)
    assert clock.seconds["inner"] >= 0.05
    assert 0.02 <= clock.seconds["outer"] < 0.05 + clock.seconds["inner"]
    assert versions()["geo4d"]
    assert peak_memory() is None or peak_memory() > 2**20
