import numpy as np

from tests.support.recordings import check_partial, check_recognised, check_written, write_diode


def test_what_is_read_is_what_was_written(tmp_path):
    write_diode(tmp_path)
    check_written("diode", tmp_path, has_poses=False, count=1, least_known=0.1, intrinsics="other")


def test_the_layout_is_recognised(tmp_path):
    write_diode(tmp_path)
    check_recognised("diode", tmp_path)


def test_a_partial_folder_is_refused(tmp_path):
    folder = write_diode(tmp_path)
    check_partial(
        "diode",
        tmp_path,
        folder / "val/outdoor/scene_00022/scan_00193/00022_00193_outdoor_000_000_depth_mask.npy",
    )


def test_diode_edges_are_masked():
    from geo4d.datasets.readers.diode import edge_mask

    step = np.full((40, 40), 2.0, np.float32)
    step[:, 20:] = 10
    mask = edge_mask(step, np.ones_like(step, bool))
    assert mask[:, 18:22].any(axis=1).all()
    assert not mask[:, :14].any()
    assert not mask[:, 26:].any()
    assert not edge_mask(step, np.zeros_like(step, bool)).any()
