import numpy as np
import pytest

from geo4d.datasets.readers.synthetic import READER
from geo4d.errors import InputError
from geo4d.evaluation.run import load_ground_truth


def test_the_example_truth_has_no_pictures_and_is_read(repository) -> None:
    sequence = load_ground_truth(repository / "examples/clip_truth")
    assert sequence.rgb is None
    assert sequence.num_frames == 32
    assert sequence.depth is not None
    assert sequence.depth[0].shape == sequence.size == (192, 320)
    assert sequence.c2w is not None
    assert sequence.dynamic is not None
    assert 0 < sequence.dynamic[3].mean() < 0.5


def test_depth_alone_needs_its_description(tmp_path) -> None:
    (tmp_path / "depth").mkdir()
    np.savez(tmp_path / "depth/000000.npz", depth=np.ones((4, 5), np.float32))
    assert READER.find(tmp_path) == {}
    (tmp_path / "clip.json").write_text('{"fps": 10}')
    ((name, folder),) = READER.find(tmp_path).items()
    assert READER.load(folder, name).size == (4, 5)
    (tmp_path / "depth/000000.npz").unlink()
    with pytest.raises(InputError, match="no frames"):
        READER.load(folder, name)
