import pytest

from geo4d.errors import InputError
from tests.support.recordings import check_partial, check_recognised, check_written, load_only, write_sintel


def test_what_is_read_is_what_was_written(tmp_path):
    write_sintel(tmp_path)
    check_written("sintel", tmp_path)


def test_the_layout_is_recognised(tmp_path):
    write_sintel(tmp_path)
    check_recognised("sintel", tmp_path)


def test_a_partial_folder_is_refused(tmp_path):
    folder = write_sintel(tmp_path)
    check_partial("sintel", tmp_path, folder / "training/depth/alley_2/frame_0002.dpt")


def test_what_is_read_is_what_was_written_of_the_clean_pass(tmp_path):
    write_sintel(tmp_path, "clean")
    check_written("sintel-clean", tmp_path, intrinsics="other")


def test_the_layout_is_recognised_of_the_clean_pass(tmp_path):
    write_sintel(tmp_path, "clean")
    check_recognised("sintel-clean", tmp_path)


def test_truncated_maps_are_refused(tmp_path):
    sintel = write_sintel(tmp_path)
    file = sintel / "training" / "depth" / "alley_2" / "frame_0002.dpt"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match="truncated"):
        load_only("sintel", sintel).depth[1]
