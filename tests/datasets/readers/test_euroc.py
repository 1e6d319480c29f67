import numpy as np

from geo4d.formats.cameras import poses_to_quaternions
from tests.support.recordings import T, check_recognised, check_written, load_only, poses, write_euroc


def test_what_is_read_is_what_was_written(tmp_path):
    write_euroc(tmp_path)
    check_written("euroc", tmp_path, has_depth=False)


def test_the_layout_is_recognised(tmp_path):
    write_euroc(tmp_path)
    check_recognised("euroc", tmp_path)


def test_original_euroc_truth_is_of_the_body(tmp_path):
    folder = write_euroc(tmp_path)
    camera_to_body = np.array([[0, -1, 0, 0.1], [1, 0, 0, 0.2], [0, 0, 1, 0.3], [0, 0, 0, 1.0]])
    body = poses() @ np.linalg.inv(camera_to_body)
    quaternion = poses_to_quaternions(body)
    stamps = 1403715274312143104 + 50_000_000 * np.arange(T)
    original = folder / "mav0" / "state_groundtruth_estimate0"
    original.mkdir()
    rows = [
        ",".join(map(str, [stamp, *pose[:3, 3], *q]))
        for stamp, pose, q in zip(stamps, body, quaternion, strict=True)
    ]
    (original / "data.csv").write_text("#timestamp\n" + "\n".join(rows))
    np.testing.assert_allclose(load_only("euroc", tmp_path).c2w, poses(), atol=1e-6)
