"""The panel of the viewer: what can be set, the panes of picture and depth, and the buttons."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from geo4d.formats.inline import shrunk
from geo4d.types import Reconstruction
from geo4d.viewer.colouring import ColourBy, Colouring
from geo4d.viewer.downloads import KINDS

_PANE = 640
"""Longest side of a pane in pixels of the picture that is sent; the panel is narrower."""

_WIDTH = 256
"""Pixels of the column on a wide screen: both panes of a landscape clip then fit below the controls of a laptop."""


@dataclass(frozen=True)
class Actions:
    """What the panel asks of the viewer.

    Attributes:
        show_frame: points and words of the shown frame.
        show_all: these, and the accumulated points.
        recolour: all of it in other colours.
        show_cameras: or hide them.
        resize_points: to the size that is set.
        reset_view: of one visitor, to where it began.
        screenshot: to one visitor.
        export: a kind of file to one visitor.
    """

    show_frame: Callable[[], None]
    show_all: Callable[[], None]
    recolour: Callable[[], None]
    show_cameras: Callable[[], None]
    resize_points: Callable[[], None]
    reset_view: Callable[[Any], None]
    screenshot: Callable[[Any], None]
    export: Callable[[Any, str], None]


class Panel:
    """Handles of the controls; their values are what is shown."""

    def __init__(
        self,
        gui: Any,
        reconstruction: Reconstruction,
        num_frames: int,
        colouring: Colouring,
        share: float,
        on: Actions,
    ) -> None:
        """
        Args:
            gui: of the server.
            num_frames: of the shown scene.
            share: percent of the points, the surest, that are shown at first.
        """
        self._colouring = colouring
        notes = []
        if not reconstruction.has_poses:
            notes.append("This reconstruction has no camera poses: every frame is shown in its own camera.")
        if reconstruction.scale_kind != "metric":
            notes.append("Sizes are up to a scale.")
        if notes:
            gui.add_markdown(" ".join(notes))
        self.frame: Any = gui.add_slider("Frame", min=0, max=max(num_frames - 1, 1), step=1, initial_value=0)
        self.play: Any = gui.add_checkbox("Play", initial_value=False)
        self.colour: Any = gui.add_dropdown(
            "Colour by", colouring.choices, initial_value=colouring.choices[0]
        )
        self.legend: Any = gui.add_html("")  # and when the frame was taken
        self.share: Any = gui.add_slider(
            "Surest, %", min=1, max=100, step=1, initial_value=int(np.clip(round(share), 1, 100)),
            hint="How many of the points are shown: those whose depth is the surest",
        )  # fmt: skip
        self.view: Any = gui.add_button_group("View", ("reset", "screenshot"))
        tabs = gui.add_panel()
        with tabs.add_tab("Pictures"):
            empty = np.zeros((2, 2, 3), np.uint8)
            self.picture: Any = (
                gui.add_image(empty, label="picture") if "picture" in colouring.choices else None
            )
            self.map: Any = gui.add_image(empty, label="depth")
            self.info: Any = gui.add_markdown("")
        with tabs.add_tab("Points"):
            self.size: Any = gui.add_slider("Point size", min=0.1, max=5.0, step=0.1, initial_value=1.0)
            self.static: Any = gui.add_checkbox(
                "Accumulated", initial_value=reconstruction.has_poses, hint="Still points of the whole scene"
            )
            self.cameras: Any = gui.add_checkbox("Cameras", initial_value=True, hint="Cameras and the path")
            if reconstruction.has_poses:
                gui.add_html(_small("Path: blue start, red end. The red camera took the shown frame."))
            self.speed: Any = gui.add_slider("Speed", min=0.1, max=4.0, step=0.1, initial_value=1.0)
        with tabs.add_tab("Files"):
            kinds = [
                kind for kind, (format, _) in KINDS.items() if reconstruction.has_poses or format == "ply"
            ]
            self.kind: Any = gui.add_dropdown("Export", kinds, initial_value=kinds[0])
            self.export: Any = gui.add_button("Download")
        # beside the scene, not over it; on a phone viser makes this a sheet at the bottom whose tabs start closed
        gui.main_panel.dock_right()
        gui.main_panel.set_width(_WIDTH)
        tabs.dock_below(gui.main_panel)
        self._listen(on)

    def _listen(self, on: Actions) -> None:
        self.frame.on_update(lambda _: on.show_frame())
        self.colour.on_update(lambda _: on.recolour())
        self.share.on_update(lambda _: on.show_all())
        self.static.on_update(lambda _: on.show_all())
        self.cameras.on_update(lambda _: on.show_cameras())
        self.size.on_update(lambda _: on.resize_points())
        self.view.on_click(
            lambda event: (on.screenshot if self.view.value == "screenshot" else on.reset_view)(event.client)
        )
        self.export.on_click(lambda event: on.export(event.client, str(self.kind.value)))

    def show(self, frame: int, when: str, words: str) -> None:
        """Panes, legend and words of a frame.

        Args:
            when: which frame of the source, and at what time; in HTML.
            words: what of it is shown; in Markdown.
        """
        by: ColourBy = self.colour.value
        self.legend.content = _small(f"{when}<br>{self._colouring.legend(by)}")
        if self.picture is not None:
            self.picture.image = shrunk(self._colouring.picture(frame, "picture"), _PANE)
        shown: ColourBy = "depth" if by == "picture" else by
        self.map.label = shown
        self.map.image = shrunk(self._colouring.picture(frame, shown), _PANE)
        self.info.content = words


def _small(text: str) -> str:
    return f"<div style='padding:0 0.8em 0.4em;font-size:0.8em'>{text}</div>"
