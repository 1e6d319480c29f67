import numpy as np
import pytest

from geo4d.evaluation.sequences import NUM_TRACKS, heldout_sequence, load_sequence
from geo4d.geometry.poses import inverse
from tests.support.recordings import T, write_synthetic


def test_a_sequence_is_found_by_its_reader_and_name(tmp_path) -> None:
    write_synthetic(tmp_path)
    found = load_sequence("folder", str(tmp_path), "clip")
    assert found.dataset == "folder"
    assert found.num_frames == T


def test_a_folder_with_one_sequence_may_have_another_name(tmp_path) -> None:
    write_synthetic(tmp_path)
    assert load_sequence("folder", str(tmp_path), "what the list calls it").num_frames == T


def test_an_unknown_reader_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        load_sequence("nonsense", str(tmp_path), "a")


@pytest.fixture(scope="module")
def drawn():
    return heldout_sequence(0)


def test_a_drawn_sequence_is_the_frozen_one(drawn) -> None:
    from geo4d.synthetic.heldout import SIZE, heldout_configs, heldout_name

    assert drawn.name == heldout_name(0)
    assert drawn.size == SIZE
    assert drawn.num_frames == heldout_configs()[0].num_frames
    again = load_sequence("synthetic-heldout", "0", "any")
    np.testing.assert_array_equal(np.asarray(again.depth[1]), np.asarray(drawn.depth[1]))


def test_tracks_lie_on_the_surfaces_that_are_seen(drawn) -> None:
    """A track that is seen has the depth that the map has at its pixel."""
    import torch

    tracks = drawn.tracks
    assert tracks is not None
    assert tracks.pixels.shape[1] <= NUM_TRACKS
    close = total = 0
    for t in (0, drawn.num_frames // 2):
        seen = np.asarray(tracks.visible[t], bool)
        x, y = np.floor(np.asarray(tracks.pixels[t])[seen]).astype(int).T
        inside = (x >= 0) & (x < drawn.size[1]) & (y >= 0) & (y < drawn.size[0])
        depth = np.asarray(drawn.depth[t])[y[inside], x[inside]]
        ratio = np.asarray(tracks.depth[t])[seen][inside] / depth
        close += int((np.abs(ratio - 1) < 0.1).sum())
        total += int(inside.sum())
    assert total > 100
    assert close / total > 0.9
    assert torch.linalg.det(inverse(torch.from_numpy(drawn.c2w))[:, :3, :3]).allclose(torch.ones(1).double())
