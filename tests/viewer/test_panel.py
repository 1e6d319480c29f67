"""The panel: which controls there are, and whom they call; what they show is tested with the viewer."""

import dataclasses
import types

import pytest

from geo4d.viewer.colouring import Colouring
from geo4d.viewer.panel import Actions, Panel
from tests.viewer.test_viser_view import ViewConfig, Viewer, free_port, scene  # noqa: F401


@pytest.fixture
def gui(scene):  # noqa: F811
    """That of a server."""
    with Viewer(scene, ViewConfig(port=free_port())) as viewer:
        yield viewer.server.gui


def test_each_control_calls_its_own_action(scene, gui) -> None:  # noqa: F811
    called: list[str] = []
    names = [field.name for field in dataclasses.fields(Actions)]
    actions = Actions(**{name: lambda *_, name=name: called.append(name) for name in names})
    panel = Panel(gui, scene, 6, Colouring(scene, [0, 5]), 80.4, actions)
    assert panel.share.value == 80
    event = types.SimpleNamespace(client=None)
    expected = {
        "frame": "show_frame", "colour": "recolour", "share": "show_all", "static": "show_all",
        "cameras": "show_cameras", "size": "resize_points", "export": "export", "view": "reset_view",
    }  # fmt: skip
    for control, action in expected.items():
        called.clear()
        for listener in getattr(panel, control)._impl.update_cb:
            listener(event)
        assert called == [action], control


def test_without_poses_only_points_are_exported(scene, gui) -> None:  # noqa: F811
    bare = dataclasses.replace(scene, c2w=None, rgb=None)
    actions = Actions(*[lambda *_: None] * len(dataclasses.fields(Actions)))
    panel = Panel(gui, bare, 6, Colouring(bare, [0]), 0.2, actions)
    assert all("PLY" in kind for kind in panel.kind.options)
    assert panel.picture is None
    assert panel.share.value == 1
    assert not panel.static.value
