import numpy as np
import pytest

from geo4d.errors import InputError
from geo4d.formats.cameras import save_tum
from tests.support.recordings import (
    check_partial,
    check_recognised,
    check_written,
    load_only,
    poses,
    write_synthetic,
)


def test_what_is_read_is_what_was_written(tmp_path):
    write_synthetic(tmp_path)
    check_written("folder", tmp_path)


def test_the_layout_is_recognised(tmp_path):
    write_synthetic(tmp_path)
    check_recognised("folder", tmp_path)


def test_a_partial_folder_is_refused(tmp_path):
    folder = write_synthetic(tmp_path)
    check_partial("folder", tmp_path, folder / "depth/000001.npz")


def test_truncated_maps_are_refused(tmp_path):
    clip = write_synthetic(tmp_path)
    file = clip / "depth" / "000001.npz"
    file.write_bytes(file.read_bytes()[:60])
    sequence = load_only("folder", tmp_path)
    with pytest.raises(InputError, match="000001"):
        sequence.depth[1]


def test_maps_of_another_size_are_refused(tmp_path):
    clip = write_synthetic(tmp_path)
    np.savez(clip / "depth" / "000001.npz", depth=np.ones((3, 3), np.float32))
    with pytest.raises(InputError, match="000001"):
        load_only("folder", tmp_path).depth[1]


def test_times_that_go_back_are_refused(tmp_path):
    clip = write_synthetic(tmp_path)
    save_tum(clip / "poses.txt", np.array([0.0, 0.2, 0.1]), poses())
    with pytest.raises(InputError, match="increasing times"):
        load_only("folder", tmp_path)
