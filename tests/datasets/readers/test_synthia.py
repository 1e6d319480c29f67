from tests.support.plane_layouts import write_synthia
from tests.support.planes import check_lost, check_plane, check_recognised


def test_what_is_read_is_the_plane(tmp_path):
    check_plane(
        "synthia",
        tmp_path,
        write_synthia(tmp_path),
        marks_sky=True,
        tolerance=2e-3,
        step_s=0.2,
        with_poses=False,
    )


def test_the_layout_is_told_from_all_others(tmp_path):
    write_synthia(tmp_path)
    check_recognised("synthia", tmp_path)


def test_half_a_download_says_what_is_missing(tmp_path):
    write_synthia(tmp_path)
    check_lost("synthia", tmp_path, "SYNTHIA-SEQS-01-DAWN/CameraParams/intrinsics.txt", "intrinsics.txt")
