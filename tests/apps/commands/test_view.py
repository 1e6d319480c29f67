from geo4d.apps.commands.view import ViewOptions, run
from geo4d.viewer import rerun_view, viser_view
from tests.support.stored import run_once


def test_what_is_asked_for_is_what_is_shown(tmp_path, monkeypatch) -> None:
    run_once(tmp_path / "out")
    shown = []
    monkeypatch.setattr(viser_view, "view", lambda result, config: shown.append((result, config)))
    options = ViewOptions(
        tmp_path / "out", host="0.0.0.0", port=9, scene=1, max_points=7, origins=("https://a.example",)
    )
    assert run(options) == 0
    ((result, config),) = shown
    assert result.num_frames == 3
    assert (config.host, config.port, config.scene, config.max_points, config.origins) == (
        "0.0.0.0",
        9,
        1,
        7,
        ("https://a.example",),
    )


def test_nobody_else_reaches_it_unless_asked(tmp_path) -> None:
    assert ViewOptions(tmp_path).host == "127.0.0.1"
    assert ViewOptions(tmp_path).origins == ()


def test_rerun_is_opened_in_place_of_the_page(tmp_path, monkeypatch) -> None:
    run_once(tmp_path / "out")
    shown = []
    monkeypatch.setattr(rerun_view, "view_in_rerun", lambda result, scene: shown.append((result, scene)))
    assert run(ViewOptions(tmp_path / "out", rerun=True, scene=2)) == 0
    ((result, scene),) = shown
    assert result.num_frames == 3
    assert scene == 2
