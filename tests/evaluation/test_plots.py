from dataclasses import replace

import numpy as np
import pytest

from geo4d.evaluation import plots
from geo4d.evaluation.plots import save_error_maps, save_trajectories
from geo4d.evaluation.protocols import PROTOCOLS
from geo4d.formats.images import load_image
from tests.support.scored import truth

pytest.importorskip("matplotlib")
PROTOCOL = next(p for p in PROTOCOLS.values() if p.depth is not None and p.poses is not None)


def test_a_column_for_each_chosen_frame(plane, tmp_path) -> None:
    widths = []
    for count in (1, 4):
        path = tmp_path / "deep" / f"{count}.png"
        save_error_maps(path, truth(plane), plane, PROTOCOL, num_frames=count)
        picture = load_image(path)
        assert np.asarray(picture).std() > 0.05  # something is drawn
        widths.append(picture.shape[1])
    assert widths[1] > 3 * widths[0]


def test_errors_are_seen_in_the_picture_and_a_perfect_one_is_dark(plane, tmp_path) -> None:
    maps = np.asarray(truth(plane).maps).copy()
    save_error_maps(tmp_path / "good.png", truth(plane), plane, PROTOCOL, num_frames=1)
    maps[:, :, : maps.shape[2] // 2] *= 1.8
    save_error_maps(tmp_path / "bad.png", replace(truth(plane), maps=maps), plane, PROTOCOL, num_frames=1)
    good, bad = (np.asarray(load_image(tmp_path / name)) for name in ("good.png", "bad.png"))
    assert good.shape == bad.shape
    lower = slice(int(0.7 * good.shape[0]), int(0.95 * good.shape[0]))
    assert np.abs(good[lower] - bad[lower]).mean() > 0.02


def test_paths_are_drawn_after_their_alignment(plane, tmp_path, monkeypatch) -> None:
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    pyplot = plots._pyplot()
    subplots = pyplot.subplots

    def watched(*arguments, **options):
        figure, axis = subplots(*arguments, **options)
        plot = axis.plot
        monkeypatch.setattr(
            axis, "plot", lambda x, y, *rest, **kw: (drawn.append((x, y)), plot(x, y, *rest, **kw))
        )
        return figure, axis

    monkeypatch.setattr(pyplot, "subplots", watched)
    moved = plane.c2w.copy()
    moved[:, :3, 3] = 2.5 * moved[:, :3, 3] + [1, 2, 3]
    save_trajectories(tmp_path / "a.png", replace(truth(plane), c2w=moved), plane, PROTOCOL)
    assert (tmp_path / "a.png").stat().st_size > 1000
    (reference, predicted) = drawn
    np.testing.assert_allclose(predicted[0], reference[0], atol=1e-5)
    np.testing.assert_allclose(predicted[1], reference[1], atol=1e-5)
    largest = np.sort(np.ptp(plane.c2w[:, :3, 3], axis=0))[-2:]  # seen where the path is longest
    np.testing.assert_allclose(np.sort([np.ptp(reference[0]), np.ptp(reference[1])]), largest, atol=1e-9)


def test_without_poses_there_is_no_path_to_draw(plane, tmp_path) -> None:
    with pytest.raises(ValueError, match="expected poses in the sequence, the prediction and the protocol"):
        save_trajectories(tmp_path / "a.png", replace(truth(plane), c2w=None), plane, PROTOCOL)
    unknown = np.full_like(plane.c2w, np.nan)
    with pytest.raises(ValueError, match="at least one frame with both poses"):
        save_trajectories(tmp_path / "a.png", replace(truth(plane), c2w=unknown), plane, PROTOCOL)
