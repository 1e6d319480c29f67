import numpy as np
import pytest
import torch

from geo4d.config import RunConfig
from geo4d.run.inputs import known_matrix, load_model, open_clip, require_camera
from geo4d.video.io import Video
from tests.support.controls import stub


def clip(num_frames: int = 8, size: tuple[int, int] = (48, 64), cut: int | None = None) -> Video:
    dark, light = np.zeros((*size, 3), np.uint8), np.full((*size, 3), 230, np.uint8)
    dark[:, ::4], light[::6] = 60, 90
    pictures = [dark, light]
    rows = [pictures[int(cut is not None and t >= cut)] for t in range(num_frames)]
    return Video(np.stack(rows))


def nobody(stage: str, done: int, total: int) -> None:
    pass


def test_no_camera_is_known_unless_it_was_given() -> None:
    assert known_matrix((24, 32), clip(), RunConfig()) is None


def test_intrinsics_are_of_the_source_and_scale_with_the_picture() -> None:
    config = RunConfig(intrinsics=(50.0, 60.0, 30.0, 20.0))
    matrix = known_matrix((24, 64), clip(), config)  # half as high, as wide as the source
    torch.testing.assert_close(matrix, torch.tensor([[50.0, 0, 30], [0, 30, 10], [0, 0, 1]]))


def test_a_field_of_view_is_the_width_of_the_source() -> None:
    matrix = known_matrix((48, 64), clip(), RunConfig(fov_deg=90.0))
    torch.testing.assert_close(
        matrix, torch.tensor([[32.0, 0, 32], [0, 32, 24], [0, 0, 1]]), atol=1e-4, rtol=1e-5
    )


def test_a_model_that_was_given_is_taken_as_it_is() -> None:
    model = stub()
    assert load_model(model, {"ignored": 1}, RunConfig(), "cpu") is model


def test_options_of_the_wrong_type_are_named() -> None:
    with pytest.raises(ValueError, match=r"of the right types, got .*num_pixels"):
        load_model("tiny", {"num_pixels": "many"}, RunConfig(), "cpu")
    with pytest.raises(ValueError, match="expected options out of"):
        load_model("tiny", {"nonsense": 1}, RunConfig(), "cpu")


def test_arrays_have_no_data_set_and_times_that_were_given() -> None:
    pictures = np.zeros((3, 16, 16, 3), np.uint8)
    film, config = open_clip(pictures, RunConfig(), [0.0, 0.5, 2.0])
    assert film.times_s.tolist() == [0, 0.5, 2]
    assert config == RunConfig()


@pytest.mark.parametrize(
    "given",
    [
        (1e-300, 1e-300, 30.0, 20.0),
        (1e300, 1e300, 30.0, 20.0),
        (50.0, 5.0, 30.0, 20.0),
        (50.0, 50.0, 1e9, 20.0),
    ],
    ids=["no focal length", "endless", "pixels ten times as wide", "principal point elsewhere"],
)
def test_intrinsics_that_no_camera_has_are_refused_before_any_work(given) -> None:
    film = Video(torch.zeros(2, 40, 60, 3), fps=10.0)
    require_camera(film, RunConfig())
    require_camera(film, RunConfig(intrinsics=(50.0, 60.0, -10.0, 70.0)))
    with pytest.raises(ValueError, match=r"fx fy cx cy of a camera, in pixels of the picture of 60x40"):
        require_camera(film, RunConfig(intrinsics=given))


def test_a_recording_brings_times_and_camera_and_the_user_wins(tmp_path) -> None:
    from geo4d.formats.images import save_image

    folder = tmp_path / "rgbd_dataset_freiburg3_x"
    lines = []
    for t in range(3):
        save_image(folder / "rgb" / f"{t}.png", np.zeros((480, 640, 3), np.uint8))
        lines.append(f"{100 + t / 10:.1f} rgb/{t}.png")
    (folder / "rgb.txt").write_text("\n".join(lines))
    film, config = open_clip(folder, RunConfig())
    assert film.lens is None  # freiburg3 is without distortion
    np.testing.assert_allclose(film.times_s, [100, 100.1, 100.2])
    assert config.intrinsics == pytest.approx((535.4, 539.2, 320.6, 248.1))
    assert any("TUM RGB-D" in note for note in film.notes)
    given = RunConfig(intrinsics=(1.0, 2.0, 3.0, 4.0), fps=5.0)
    film, config = open_clip(folder, given)
    assert config.intrinsics == (1, 2, 3, 4)
    np.testing.assert_allclose(np.diff(film.times_s), 0.2)


def test_distortion_comes_with_its_camera_and_leaves_that_of_the_undistorted_picture(tmp_path) -> None:
    from geo4d.formats.images import save_image

    folder = tmp_path / "rgbd_dataset_freiburg1_x"
    for t in range(2):
        save_image(folder / "rgb" / f"{t}.png", np.zeros((480, 640, 3), np.uint8))
    (folder / "rgb.txt").write_text("1.0 rgb/0.png\n1.1 rgb/1.png\n")
    film, config = open_clip(folder, RunConfig())
    assert film.lens is not None
    assert film.lens.intrinsics == pytest.approx((517.3, 516.5, 319.1, 255.8))
    assert config.intrinsics == pytest.approx(film.lens.pinhole((480, 640)))
    assert config.intrinsics[0] > 517.3
    as_they_are, kept = open_clip(folder, RunConfig(distortion="none"))
    assert as_they_are.lens is None
    assert kept.intrinsics == pytest.approx((517.3, 516.5, 319.1, 255.8))
    other, _ = open_clip(folder, RunConfig(distortion="radtan:0.1,0,0,0"))
    assert other.lens is not None
    assert other.lens.distortion.coefficients == (0.1, 0, 0, 0)
    mine, _ = open_clip(folder, RunConfig(intrinsics=(500.0, 500.0, 320.0, 240.0)))
    assert mine.lens is None  # the distortion belongs to the other numbers


def test_distortion_of_the_user_needs_intrinsics() -> None:
    pictures = np.zeros((2, 48, 64, 3), np.uint8)
    camera = (50.0, 50.0, 32.0, 24.0)
    film, config = open_clip(pictures, RunConfig(distortion="fisheye:0.1,0,0,0", intrinsics=camera))
    assert film.lens is not None
    assert config.intrinsics is not None
    with pytest.raises(ValueError, match="--intrinsics FX FY CX CY with --distortion"):
        open_clip(pictures, RunConfig(distortion="fisheye:0.1,0,0,0"))
    with pytest.raises(ValueError, match="radtan:K1"):
        open_clip(pictures, RunConfig(distortion="0.1,0,0,0", intrinsics=camera))


def test_a_bag_brings_its_camera_and_its_distortion(tmp_path) -> None:
    from tests.support.bags import START_NS, camera_info, raw_image, write_bag

    made = []
    for t in range(3):
        stamp = START_NS + t * 10**8
        made.append(("/cam/image_raw", stamp, raw_image(2, stamp, np.full((48, 64, 3), t, np.uint8), "bgr8")))
        info = camera_info(2, stamp, (48, 64), (50, 51, 31.5, 23.5), (0.3, 0.0, 0.0, 0.0, 0.0))
        made.append(("/cam/camera_info", stamp, info))
    path = write_bag(tmp_path / "drive", "mcap", made)
    film, config = open_clip(path, RunConfig())
    assert film.lens is not None
    assert film.lens.intrinsics == (50, 51, 32, 24)
    assert config.intrinsics == pytest.approx(film.lens.pinhole((48, 64)))
    assert any("camera of the MCAP file: fx 50" in note for note in film.notes)
    assert film.num_frames == 3
    film.close()
    film, config = open_clip(path, RunConfig(intrinsics=(60.0, 60.0, 32.0, 24.0), topic="/cam/image_raw"))
    assert film.lens is None
    assert config.intrinsics == (60, 60, 32, 24)
    film.close()
