"""Interactive page in the browser: points over time, cameras, trajectory. Serves one ``Reconstruction`` with viser.

Points of the shown frame are read when the frame is shown; only a thinned, accumulated cloud of the static scene is kept.
"""

import logging
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geo4d.errors import Geo4DError, OutputError
from geo4d.export import ExportConfig, iter_point_clouds
from geo4d.export.kept import MOVING, KeptShare, default_confidence_threshold, kept_mask
from geo4d.formats.points import PointCloud
from geo4d.geometry.cameras import fov_from_focal
from geo4d.types import Reconstruction
from geo4d.viewer.colouring import Colouring, plain_colours, share_of, threshold_of
from geo4d.viewer.downloads import export_bytes, png_bytes
from geo4d.viewer.first_view import steps_back
from geo4d.viewer.guard import guarded
from geo4d.viewer.panel import Actions, Panel

logger = logging.getLogger(__name__)

FRUSTA = 16
"""Cameras drawn along the trajectory at most."""

SCREENSHOT_HEIGHT = 1080
"""Pixels that a screenshot is high, at least."""

_EVERY_CONFIDENCE = ExportConfig(min_confidence=0.0)
"""Points as an export has them, before the confidence slider."""


@dataclass(frozen=True)
class ViewConfig:
    """How a reconstruction is shown.

    Attributes:
        host: address to serve on; the default is reachable from this machine only.
        port: port to serve on.
        origins: pages of other addresses that may connect, such as https://notebook.example for a proxy.
        scene: scene number of a video with shot cuts.
        max_points: points drawn per frame; more are thinned evenly.
        static_points: points kept of the accumulated static scene.
        static_frames: frames that the accumulated scene is built from.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    origins: tuple[str, ...] = ()
    scene: int = 0
    max_points: int = 60_000
    static_points: int = 200_000
    static_frames: int = 12


class Viewer:
    """Owns the server; use as a context manager, or call ``close``."""

    def __init__(self, reconstruction: Reconstruction, config: ViewConfig = ViewConfig()) -> None:
        """Start serving.

        Raises:
            OutputError: the address is in use or may not be bound.
            ValueError: there is no such scene or port.
        """
        import viser

        scene = (
            np.zeros(reconstruction.num_frames, int) if reconstruction.scene is None else reconstruction.scene
        )
        self.frames = [int(frame) for frame in np.flatnonzero(np.asarray(scene) == config.scene)]
        if not self.frames:
            raise ValueError(f"expected a scene out of {sorted(set(scene.tolist()))}, got {config.scene}")
        self.reconstruction = reconstruction
        self.config = config
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.unit = self._typical_depth()
        _check_address(config.host, config.port)
        with guarded(config.host, config.origins):
            self.server = viser.ViserServer(host=config.host, port=config.port, label="geo4d", verbose=False)
        self.server.scene.set_up_direction("-y")
        self.server.gui.configure_theme(show_logo=False, show_share_button=False)
        self._colouring = Colouring(reconstruction, self._spread_frames())
        self.panel = self._add_panel()
        self._add_cameras()
        self._static = self._accumulate_static()
        self._points: Any = None
        self._static_handle: Any = None
        self._show_static()
        self._show_frame()
        self.server.on_client_connect(self._place_viewer)
        self._player = threading.Thread(target=self._play, daemon=True)
        self._player.start()

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self.config.host}:{self.server.get_port()}"

    def close(self) -> None:
        """Stop serving and playing."""
        if not self._closed.is_set():
            self._closed.set()
            self._player.join(timeout=2)
            self.server.stop()

    # scene --------------------------------------------------------------------------------------------------------

    def _typical_depth(self) -> float:
        depth = np.asarray(self.reconstruction.depth[self.frames[0]], np.float32)
        finite = depth[np.isfinite(depth)]
        return float(np.median(finite)) if finite.size else 1.0

    def _pose(self, frame: int) -> np.ndarray:
        c2w = self.reconstruction.c2w
        return np.eye(4) if c2w is None else np.asarray(c2w[frame], np.float64)

    def _add_panel(self) -> Panel:
        threshold = default_confidence_threshold(
            self.reconstruction, self.frames, edge_step=_EVERY_CONFIDENCE.edge_step
        )
        actions = Actions(
            show_frame=self._show_frame,
            show_all=self._show_all,
            recolour=self._recolour,
            show_cameras=self._show_cameras,
            resize_points=self._resize_points,
            reset_view=self._place_viewer,
            screenshot=self._send_screenshot,
            export=self._send_export,
        )
        share = share_of(self._colouring.certain, threshold)
        return Panel(self.server.gui, self.reconstruction, len(self.frames), self._colouring, share, actions)

    @property
    def min_confidence(self) -> float:
        """Points below this are not shown."""
        return threshold_of(self._colouring.certain, float(self.panel.share.value))

    def _add_cameras(self) -> None:
        self._camera_handles: list[Any] = []
        self.frustum: Any = None
        if not self.reconstruction.has_poses:
            return
        centres = np.stack([self._pose(frame)[:3, 3] for frame in self.frames]).astype(np.float32)
        if len(centres) > 1:
            segments = np.stack([centres[:-1], centres[1:]], axis=1)
            shade = np.linspace(0, 255, len(segments))[:, None, None]
            colours = np.concatenate([shade, np.full_like(shade, 120), 255 - shade], -1).astype(np.uint8)
            self._camera_handles.append(
                self.server.scene.add_line_segments(
                    "/trajectory",
                    segments,
                    np.repeat(colours, 2, axis=1),
                    thickness=2.0,
                    thickness_units="screen",
                )
            )
        step = max(1, -(-len(self.frames) // FRUSTA))
        for number in range(0, len(self.frames), step):
            handle = self._add_frustum(f"/cameras/{number}", self.frames[number], 0.04, (120, 120, 200))
            self._camera_handles.append(handle)

    def _add_frustum(
        self, name: str, frame: int, size: float, colour: tuple[int, int, int], image: Any = None
    ) -> Any:
        import torch

        from geo4d.geometry.poses import matrix_to_quaternion

        height, width = self.reconstruction.size
        focal = torch.tensor(float(self.reconstruction.intrinsics[frame][1, 1]))
        pose = self._pose(frame)
        return self.server.scene.add_camera_frustum(
            name,
            fov=float(fov_from_focal(focal, height)),
            aspect=width / height,
            scale=size * self.unit,
            thickness=1.5,  # in pixels: the unit of the world is arbitrary
            thickness_units="screen",
            color=colour,
            wxyz=matrix_to_quaternion(torch.from_numpy(pose[:3, :3])).numpy(),
            position=pose[:3, 3],
            image=image,
        )

    def _accumulate_static(self) -> PointCloud | None:
        """Thinned points of the whole scene that do not move; None without poses."""
        if not self.reconstruction.has_poses:
            return None
        frames = self._spread_frames()
        rng = np.random.default_rng(0)
        pieces = []
        for frame, cloud in zip(frames, self._clouds(frames, static_only=True), strict=True):
            keep = min(self.config.static_points // len(frames), cloud.num_points)
            pieces.append(cloud.select(rng.choice(cloud.num_points, keep, replace=False)))
            logger.debug("static points of frame %d: %d", frame, keep)
        positions = np.concatenate([piece.positions for piece in pieces])
        confidence = np.concatenate([piece.confidence for piece in pieces if piece.confidence is not None])
        colours = np.concatenate([self._colours(piece) for piece in pieces])
        return PointCloud(positions, colours, confidence)

    def _clouds(self, frames: list[int], *, static_only: bool) -> Any:
        clouds = iter_point_clouds(self.reconstruction, frames, _EVERY_CONFIDENCE)
        for frame, cloud in zip(frames, clouds, strict=True):
            cloud = self._coloured(cloud, frame)
            if static_only and self.reconstruction.dynamic is not None:
                cloud = cloud.select(~_moving_of_cloud(self.reconstruction, frame))
            yield cloud

    def _coloured(self, cloud: PointCloud, frame: int) -> PointCloud:
        """All points of a frame in the colours that are chosen; they come in the order of the pixels."""
        by = self.panel.colour.value
        if by == "picture":
            return cloud
        colours = self._colouring.picture(frame, by)[_pixels_of_cloud(self.reconstruction, frame)]
        return replace(cloud, colours=colours)

    def _confident(self, cloud: PointCloud) -> PointCloud:
        assert cloud.confidence is not None
        return cloud.select(cloud.confidence >= self.min_confidence)

    def kept_share(self, frames: Sequence[int] | None = None) -> KeptShare:
        """What the filters keep of the pixels with depth; None takes a few frames, evenly spread."""
        threshold, edge_step = self.min_confidence, _EVERY_CONFIDENCE.edge_step
        share = KeptShare(threshold, edge_step)
        dynamic = self.reconstruction.dynamic
        for frame in self._spread_frames() if frames is None else frames:
            depth = np.asarray(self.reconstruction.depth[frame], np.float32)
            confidence = np.asarray(self.reconstruction.confidence[frame], np.float32)
            keep = kept_mask(depth, confidence, min_confidence=threshold, edge_step=edge_step)
            share.add(
                depth, confidence, keep, None if dynamic is None else np.asarray(dynamic[frame], np.float32)
            )
        return share

    def _spread_frames(self) -> list[int]:
        chosen = np.linspace(0, len(self.frames) - 1, self.config.static_frames).round().astype(int)
        return [self.frames[number] for number in np.unique(chosen)]

    def _colours(self, cloud: PointCloud) -> np.ndarray:
        return plain_colours(cloud.num_points) if cloud.colours is None else cloud.colours

    # updates ------------------------------------------------------------------------------------------------------

    def _show_all(self) -> None:
        self._show_static()
        self._show_frame()

    def _recolour(self) -> None:
        self._static = self._accumulate_static()
        self._show_all()

    def _show_static(self) -> None:
        with self._lock:
            if self._static_handle is not None:
                self._static_handle.remove()
                self._static_handle = None
            if self.panel.static.value and self._static is not None:
                self._static_handle = self._add_points("/static", self._confident(self._static))

    def _show_frame(self) -> None:
        with self._lock:
            frame = self._frame()
            (cloud,) = self._clouds([frame], static_only=False)
            if (
                self.panel.static.value
                and self._static is not None
                and self.reconstruction.dynamic is not None
            ):
                cloud = cloud.select(_moving_of_cloud(self.reconstruction, frame))
            step = max(1, -(-cloud.num_points // self.config.max_points))
            cloud = cloud.select(np.arange(0, cloud.num_points, step))
            self._points = self._add_points("/frame", self._confident(cloud))
            share = self.kept_share([frame])
            self.panel.show(frame, self._when(frame, share), _share_words(share))
            if self.reconstruction.has_poses:
                image = None
                if self.reconstruction.rgb is not None:
                    picture = np.asarray(self.reconstruction.rgb[frame])
                    shrink = max(1, max(picture.shape[:2]) // 160)
                    image = np.round(255 * np.clip(picture[::shrink, ::shrink], 0, 1)).astype(np.uint8)
                self.frustum = self._add_frustum("/current", frame, 0.12, (220, 60, 60), image)
                self.frustum.visible = self.panel.cameras.value

    def _when(self, frame: int, share: KeptShare) -> str:
        """Which frame of the source this is, when, and whether to trust it; in HTML."""
        words = f"source frame {int(self.reconstruction.source_frames[frame])}, "
        words += f"{float(self.reconstruction.times_s[frame]):.3f} s"
        if self.reconstruction.reliable is not None and not bool(self.reconstruction.reliable[frame]):
            words += " — <b>unreliable</b>"
        if share.finite and share.is_low:
            words += "<br><b>less than half of it is shown</b>: raise 'Surest'"
        return words

    def _add_points(self, name: str, cloud: PointCloud) -> Any:
        return self.server.scene.add_point_cloud(
            name,
            points=cloud.positions.astype(np.float32),
            colors=self._colours(cloud),
            point_size=float(self.panel.size.value) * self.unit * 0.004,
            point_shape="rounded",
        )

    def _resize_points(self) -> None:
        with self._lock:
            for handle in (self._points, self._static_handle):
                if handle is not None:
                    handle.point_size = float(self.panel.size.value) * self.unit * 0.004

    def _show_cameras(self) -> None:
        for handle in [*self._camera_handles, *([self.frustum] if self.frustum else [])]:
            handle.visible = self.panel.cameras.value

    def _place_viewer(self, client: Any) -> None:
        """Put a new visitor behind and above the first camera, looking where it looks, with its picture in view."""
        pose = self._pose(self.frames[0])
        centre, right, down, forward = pose[:3, 3], pose[:3, 0], pose[:3, 1], pose[:3, 2]
        camera = client.camera
        aspect = max(camera.image_width, 1) / max(camera.image_height, 1)
        intrinsics = np.asarray(self.reconstruction.intrinsics[self.frames[0]], np.float64)
        back = self.unit * steps_back(intrinsics, self.reconstruction.size, fov=camera.fov, aspect=aspect)
        camera.position = centre - back * forward - 0.5 * back * down + 0.2 * back * right
        camera.look_at = centre + self.unit * forward
        camera.up_direction = -down

    def _send_screenshot(self, client: Any) -> None:
        """What a visitor sees, as large as its window or larger.

        A slow browser draws in fewer pixels than its window has, and says so in the camera: the height is
        therefore ``SCREENSHOT_HEIGHT`` at least.
        """
        height, width = client.camera.image_height, client.camera.image_width
        scale = max(1.0, SCREENSHOT_HEIGHT / height)
        pixels = client.get_render(round(scale * height), round(scale * width), transport_format="png")
        client.send_file_download(f"frame_{self._frame()}.png", png_bytes(pixels), save_immediately=True)

    def _send_export(self, client: Any, kind: str) -> None:
        try:
            name, content = export_bytes(
                self.reconstruction,
                kind,
                frame=self._frame(),
                scene=self.config.scene,
                min_confidence=self.min_confidence,
            )
        except (Geo4DError, ValueError) as error:
            client.add_notification("This could not be exported", str(error), color="red")
            return
        client.send_file_download(name, content, save_immediately=True)

    def _frame(self) -> int:
        """The shown frame, as its position in the reconstruction."""
        return self.frames[min(int(self.panel.frame.value), len(self.frames) - 1)]

    def _play(self) -> None:
        while not self._closed.wait(self._time_until_next() / float(self.panel.speed.value)):
            if self.panel.play.value:
                self.panel.frame.value = (int(self.panel.frame.value) + 1) % len(self.frames)

    def _time_until_next(self) -> float:
        """Seconds of the source for which the shown frame stays; the usual step at the end."""
        steps = np.diff(np.asarray(self.reconstruction.times_s, np.float64)[self.frames])
        steps = np.where(steps > 0, steps, 0.0)
        number = int(self.panel.frame.value)
        usual = float(np.median(steps)) if len(steps) else 0.1
        return max(float(steps[number]) if number < len(steps) else usual, 1e-3)


def _check_address(host: str, port: int) -> None:
    """The server's own thread cannot report that an address is not to be had, so it is tried here first."""
    if not 0 < port < 65536:
        raise ValueError(f"expected a port of 1 to 65535, got {port}; --port chooses it")
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot serve on {host}:{port}: {error.strerror}; try another --port or --host"
        ) from error


def _pixels_of_cloud(reconstruction: Reconstruction, frame: int) -> np.ndarray:
    """[H, W] True where a pixel is a point of this frame, before the confidence slider."""
    return kept_mask(
        np.asarray(reconstruction.depth[frame], np.float32),
        np.asarray(reconstruction.confidence[frame], np.float32),
        min_confidence=0.0,
        edge_step=_EVERY_CONFIDENCE.edge_step,
    )


def _moving_of_cloud(reconstruction: Reconstruction, frame: int) -> np.ndarray:
    """For every point of this frame that there is before the confidence slider: does it move?"""
    assert reconstruction.dynamic is not None
    keep = _pixels_of_cloud(reconstruction, frame)
    return np.asarray(reconstruction.dynamic[frame], np.float32)[keep] >= MOVING


def _share_words(share: KeptShare) -> str:
    """For the panel: what is shown of the frame, with a warning below one half."""
    if share.finite == 0:
        return "this frame has no depth"
    words = share.words()
    return f"**only {words}**; raise 'Surest' to see more" if share.is_low else words


def view(reconstruction: Reconstruction, config: ViewConfig = ViewConfig()) -> None:
    """Serve until interrupted."""
    with Viewer(reconstruction, config) as viewer:
        share = viewer.kept_share()
        print(f"shown: {share.words()}")
        if share.is_low and share.finite:
            logger.warning("less than half is shown; raise the slider 'Surest, %'")
        print(f"Viewing at {viewer.url} (stop with Ctrl-C)", flush=True)
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            print("stopped")
