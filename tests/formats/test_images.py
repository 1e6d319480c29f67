import struct

import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.images import (
    load_dpt,
    load_exr,
    load_image,
    load_pfm,
    load_png16,
    save_exr,
    save_image,
    save_mask,
    save_png16,
)
from tests.support.writers import save_dpt, save_pfm


def test_images_round_trip(tmp_path, rng) -> None:
    rgb = rng.random((5, 7, 3)).astype(np.float32)
    save_image(tmp_path / "a.png", rgb)
    np.testing.assert_allclose(load_image(tmp_path / "a.png"), rgb, atol=0.5 / 255 + 1e-6)
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    save_image(tmp_path / "red.png", red)
    assert load_image(tmp_path / "red.png")[0, 0].tolist() == [1.0, 0.0, 0.0]


def test_mask_is_grey_black_and_white(tmp_path) -> None:
    import cv2

    save_mask(tmp_path / "m.png", np.array([[True, False, True]]))
    assert cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED).tolist() == [[255, 0, 255]]


def test_png16_round_trip_and_range(tmp_path, rng) -> None:
    values = rng.integers(0, 65536, (4, 6)).astype(np.float32)
    save_png16(tmp_path / "d.png", values)
    np.testing.assert_array_equal(load_png16(tmp_path / "d.png"), values)
    save_png16(tmp_path / "e.png", np.array([[65535.00000000001, -1e-12]]))  # rounding decides what fits
    assert load_png16(tmp_path / "e.png").tolist() == [[65535, 0]]
    save_png16(tmp_path / "n.png", np.array([[np.nan, 3.0]]))
    assert load_png16(tmp_path / "n.png").tolist() == [[0.0, 3.0]]
    for bad in (70000.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="65535"):
            save_png16(tmp_path / "bad.png", np.array([[bad]]))
    assert not (tmp_path / "bad.png").exists()


@pytest.mark.parametrize(("precision", "tolerance"), [("float", 0.0), ("half", 1e-3)])
def test_exr_round_trip_keeps_missing_and_sky(tmp_path, rng, precision, tolerance) -> None:
    depth = rng.random((6, 9)).astype(np.float32) * 50
    depth[0, 0], depth[0, 1] = np.nan, np.inf
    save_exr(
        tmp_path / "z.exr",
        {"Z": depth, "confidence": np.zeros_like(depth)},
        precision=precision,
        attributes={"unit": "m"},
    )
    channels = load_exr(tmp_path / "z.exr")
    assert set(channels) == {"Z", "confidence"}
    np.testing.assert_allclose(channels["Z"], depth, rtol=tolerance)
    if precision == "half":
        with pytest.raises(ValueError, match="65504"):
            save_exr(tmp_path / "big.exr", {"Z": np.full((2, 2), 1e6, np.float32)}, precision="half")


def test_exr_data_window_is_placed_in_the_display_window(tmp_path) -> None:
    import OpenEXR

    header = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "displayWindow": (np.array([0, 0], np.int32), np.array([9, 7], np.int32)),
        "dataWindow": (np.array([2, 3], np.int32), np.array([4, 4], np.int32)),
    }
    path = tmp_path / "w.exr"
    OpenEXR.File(header, {"Z": np.arange(6, dtype=np.float32).reshape(2, 3) + 1}).write(str(path))
    depth = load_exr(path)["Z"]
    assert depth.shape == (8, 10)
    assert depth[3, 2] == 1
    assert depth[4, 4] == 6
    assert depth.sum() == 21


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_pfm_round_trip_and_both_byte_orders(tmp_path, rng, shape) -> None:
    image = rng.random(shape).astype(np.float32)
    save_pfm(tmp_path / "a.pfm", image)
    np.testing.assert_array_equal(load_pfm(tmp_path / "a.pfm"), image)
    kind = b"Pf" if len(shape) == 2 else b"PF"
    (tmp_path / "b.pfm").write_bytes(kind + b"\n5 4\n1.0\n" + image[::-1].astype(">f4").tobytes())
    np.testing.assert_array_equal(load_pfm(tmp_path / "b.pfm"), image)


def test_dpt_round_trip(tmp_path, rng) -> None:
    depth = rng.random((3, 4)).astype(np.float32)
    save_dpt(tmp_path / "d.dpt", depth)
    np.testing.assert_array_equal(load_dpt(tmp_path / "d.dpt"), depth)
    assert struct.unpack("<fii", (tmp_path / "d.dpt").read_bytes()[:12]) == (pytest.approx(202021.25), 4, 3)


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (load_pfm, "x.pfm"),
        (load_dpt, "x.dpt"),
        (load_exr, "x.exr"),
        (load_image, "x.png"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"no such format at all, just words and more words"])
def test_damaged_files_are_refused(tmp_path, load, name, content) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="expected"):
        load(tmp_path / name)
    with pytest.raises(InputError, match="found nothing"):
        load(tmp_path / "missing")


def test_declared_size_is_checked_before_allocation(tmp_path) -> None:
    (tmp_path / "huge.pfm").write_bytes(b"Pf\n1000000 1000000\n-1\n" + bytes(16))
    with pytest.raises(InputError, match="truncated"):
        load_pfm(tmp_path / "huge.pfm")
    (tmp_path / "huge.dpt").write_bytes(
        np.float32(202021.25).tobytes() + np.array([2**30, 2**30], "<i4").tobytes()
    )
    with pytest.raises(InputError, match="truncated"):
        load_dpt(tmp_path / "huge.dpt")


def test_published_sample_files(shared_data) -> None:
    beachball = load_exr(shared_data / "data/openexr-beachball/singlepart.0001.exr")
    assert beachball["Z"].shape == (1556, 2048)
    ball = beachball["Z"][beachball["Z"] > 0]
    assert 9 <= ball.min() < ball.max() < 11
    parts = load_exr(shared_data / "data/openexr-beachball/multipart.0001.exr", part="depth_left")
    assert list(parts) == ["Z"] or "Z" in next(iter(parts))
    disparity = load_pfm(shared_data / "data/flyingthings3d-pfm-sample/disp1.pfm")
    assert disparity.shape == (540, 960)
    assert disparity.min() == pytest.approx(1.13, abs=0.01)
