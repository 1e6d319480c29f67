from tests.support.plane_layouts import write_dynamic_replica
from tests.support.planes import check_lost, check_plane, check_recognised, check_truncated


def test_what_is_read_is_the_plane(tmp_path):
    check_plane(
        "dynamic-replica",
        tmp_path,
        write_dynamic_replica(tmp_path),
        marks_sky=False,
        tolerance=1e-3,
        step_s=1 / 30,
    )


def test_the_layout_is_told_from_all_others(tmp_path):
    write_dynamic_replica(tmp_path)
    check_recognised("dynamic-replica", tmp_path)


def test_half_a_download_says_what_is_missing(tmp_path):
    write_dynamic_replica(tmp_path)
    check_lost("dynamic-replica", tmp_path, "train/*.jgz", "frame_annotations")


def test_a_truncated_file_is_named(tmp_path):
    write_dynamic_replica(tmp_path)
    check_truncated("dynamic-replica", tmp_path, "**/*.jgz")
