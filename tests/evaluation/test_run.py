"""One benchmark from its folder to its result, and to its pictures."""

import numpy as np
import pytest
from PIL import Image

from geo4d.evaluation.run import evaluate, predictions_for_plots
from tests.support.evaluated import settings


def test_rows_come_in_the_order_of_the_benchmark_and_progress_counts_what_was_kept(dataset, tmp_path):
    root, predictions = dataset
    seen: list[tuple[str, int, int]] = []
    told = settings(predictions)
    first = evaluate("folder", root, settings(predictions, limit=1), work=tmp_path / "work")
    whole = evaluate(
        "folder", root, told, work=tmp_path / "work", on_progress=lambda *said: seen.append(said)
    )
    assert [row["name"] for row in first["sequences"]] == ["bent"]
    assert [row["name"] for row in whole["sequences"]] == ["bent", "still"]
    assert seen[-1] == ("evaluate", 2, 2)
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})
    again = evaluate(
        "folder", root, told, work=tmp_path / "work", on_progress=lambda *said: seen.append(said)
    )
    assert seen[-1] == ("evaluate", 2, 2)
    assert again["sequences"] == whole["sequences"]  # seconds, too: nothing was computed again


def test_pictures_of_errors_and_of_paths_lie_in_the_folder(dataset, tmp_path):
    pytest.importorskip("matplotlib")
    root, predictions = dataset
    count = predictions_for_plots("folder", root, settings(predictions, sequences=("bent",)), tmp_path)
    pictures = sorted(path.name for path in tmp_path.glob("bent*.png"))
    assert pictures == ["bent_cameras.png", "bent_depth.png"]
    assert count == 2
    for name in pictures:
        assert np.asarray(Image.open(tmp_path / name)).std() > 1  # something is drawn
