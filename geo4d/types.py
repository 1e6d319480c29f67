"""The nouns of geo4d: what flows from video to reconstruction.

``Video -> [Window] -> predictor -> [Prediction] -> fusion -> Reconstruction -> export / viewer / metrics``

Conventions (all of them in ``docs/conventions.md``): OpenCV camera axes (+x right, +y down, +z forward); ``c2w`` maps
camera to world, column vectors; intrinsics are in pixels of the map they belong to with pixel centres at +0.5; maps are
``[T, H, W, C]``; depth is z-depth, invalid depth is NaN, sky is +inf (disparity 0).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ScaleKind = Literal["metric", "scale", "affine"]
"""``metric``: metres (disparity: 1/m). ``scale``: one unknown positive factor. ``affine``: unknown scale and shift."""

PointFrame = Literal["camera", "window", "world"]
"""``camera``: each frame's own camera. ``window``: the first camera of the window. ``world``: the reconstruction's."""

CONVENTIONS = {
    "camera_axes": "OpenCV: +x right, +y down, +z forward",
    "c2w": "camera to world, column vectors; translations in the unit of depth; one world per scene (see world)",
    "intrinsics": "pinhole, pixels of the maps, pixel centres at +0.5, no distortion",
    "depth": "z-depth (not ray length); NaN = invalid, +inf = sky",
    "confidence": "probability of a depth within 10 % once the scene's one factor is known; 0 where invalid",
    "dynamic": "probability that the pixel shows something moving, 0 to 1",
    "times_s": "presentation time in seconds, as the source states it",
    "source_frames": "frame number in the source, from 0",
    "scene": "scene number; a shot cut starts a new scene with a world and a scale of its own",
    "reliable": "false where only rejected windows, or none, saw the frame, no camera was found, or no picture shows",
}
"""What the numbers of a ``Reconstruction`` mean, in the words that results on disk and exports state."""


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras of ``T`` frames that share one image size.

    Attributes:
        intrinsics: pixels of an image of ``size``.
        c2w: camera to world.
        size: (height, width) in pixels.
    """

    intrinsics: Float[Tensor, "T 3 3"]
    c2w: Float[Tensor, "T 4 4"]
    size: tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A few frames of the video that a predictor sees at once.

    ``frame_indices`` count in the processed sequence (after frame range and stride of the run), not in the source file.
    They increase, but need not be consecutive: a dilated window has gaps.

    Attributes:
        rgb: colour in [0, 1].
        frame_indices: position of every frame in the processed sequence.
        times_s: presentation time, seconds, float64.
        index: position of the window in the plan of the run; with the seed it determines all noise.
        fps: frames per second of the window (its own frame stride included).
        intrinsics: known intrinsics in pixels of ``rgb``, or None.
        pixel_aspect: fy / fx, in pixels of ``rgb``, of a camera whose pixels are square in the source: what resizing to
            this size did to their shape. Above 1 the picture was squeezed in width.
    """

    rgb: Float[Tensor, "V H W 3"]
    frame_indices: Int[Tensor, " V"]
    times_s: Float[Tensor, " V"]
    index: int
    fps: float
    intrinsics: Float[Tensor, "V 3 3"] | None = None
    pixel_aspect: float = 1.0

    @property
    def num_frames(self) -> int:
        """Number of frames V."""
        return self.rgb.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of ``rgb``."""
        return self.rgb.shape[1], self.rgb.shape[2]


@dataclass(frozen=True)
class EvidenceMaps:
    """Evidence about a window that reaches a predictor (or the fusion) beside the pictures.

    Attributes:
        points: points in each frame's own camera; finite everywhere, meaningful where ``mask``.
        mask: True where ``points`` may be used.
        scale_kind: ``metric`` or ``scale``; one factor for all frames.
        confidence: in [0, 1], or None.
        intrinsics: pixels of the maps, or None.
        c2w: camera to the world of the whole video, translations in the unit of ``points``, or None.
        camera_confidence: in [0, 1] per frame: how far ``c2w`` and ``intrinsics`` may be trusted, or None.
        log_depth_spread: standard deviation of the logarithm of the depth where ``mask``, up to the one factor, or None.
        moving: probability that a pixel shows something moving, or None where nobody looked.
    """

    points: Float[Tensor, "V H W 3"]
    mask: Bool[Tensor, "V H W"]
    scale_kind: ScaleKind = "scale"
    confidence: Float[Tensor, "V H W"] | None = None
    intrinsics: Float[Tensor, "V 3 3"] | None = None
    c2w: Float[Tensor, "V 4 4"] | None = None
    camera_confidence: Float[Tensor, " V"] | None = None
    log_depth_spread: Float[Tensor, "V H W"] | None = None
    moving: Float[Tensor, "V H W"] | None = None


@runtime_checkable
class Prior(Protocol):
    """Anything that turns a window into camera-frame points and a mask (MoGe, plane sweep, a depth sensor).

    One whose answer for a frame does not depend on the others of its window may say so with ``frames_alone = True``;
    it is then asked for several at a time.
    """

    name: str

    def __call__(self, window: Window) -> EvidenceMaps: ...


@dataclass(frozen=True)
class Prediction:
    """What a predictor says about one window. Every modality may be missing; maps share one size [H, W].

    Attributes:
        frame_indices, times_s, window_index: as in the ``Window`` it answers.
        point_map: decoded points in ``point_frame``, up to ``point_scale_kind``; values at pixels that are not
            ``valid`` are arbitrary but finite.
        point_frame: the frame of reference of ``point_map``.
        point_scale_kind: ``scale`` (or ``metric``): one factor for the window.
        point_z_offset: where the camera centre of reference sits: true point = factor * (point + (0, 0, offset)).
            0 when the camera is at the origin; None when unknown, so that the fusion must estimate it (Geo4D).
        point_uncertainty: predicted spread of one coordinate, in the unit of ``point_map``.
        disparity: 1 / z-depth of each frame's own camera, up to ``disparity_scale_kind``.
        disparity_uncertainty: predicted spread, in the unit of ``disparity``.
        ray_map: Pluecker rays in the window's frame: unit direction, then moment = origin x direction; may be coarser
            than [H, W].
        ray_c2w: cameras from the ray maps: camera to window frame, first rotation is the identity; unit of translation
            is the window's own.
        intrinsics: pixels of the maps.
        c2w: camera to a frame shared by the window, in the unit of ``point_map`` (predictors that give cameras directly).
        valid: True where ``point_map`` (or, without it, ``disparity``) may be used.
        sky: True where the predictor sees no surface, or None.
        seed: the seed that the noise came from.
        provenance: predictor name, weight hash, steps, ...: JSON values only.
        carry: what the predictor needs to go on with the next window (latents of an overlap); opaque to others.
    """

    frame_indices: Int[Tensor, " V"]
    times_s: Float[Tensor, " V"]
    window_index: int
    point_map: Float[Tensor, "V H W 3"] | None = None
    point_frame: PointFrame = "window"
    point_scale_kind: ScaleKind = "scale"
    point_z_offset: float | None = None
    point_uncertainty: Float[Tensor, "V H W"] | None = None
    disparity: Float[Tensor, "V H W"] | None = None
    disparity_scale_kind: ScaleKind = "affine"
    disparity_uncertainty: Float[Tensor, "V H W"] | None = None
    ray_map: Float[Tensor, "V h w 6"] | None = None
    ray_c2w: Float[Tensor, "V 4 4"] | None = None
    intrinsics: Float[Tensor, "V 3 3"] | None = None
    c2w: Float[Tensor, "V 4 4"] | None = None
    valid: Bool[Tensor, "V H W"] | None = None
    sky: Bool[Tensor, "V H W"] | None = None
    seed: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    carry: Mapping[str, Tensor] | None = None

    @property
    def num_frames(self) -> int:
        """Number of frames V."""
        return self.frame_indices.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the maps.

        Raises:
            ValueError: the prediction has neither a point map nor a disparity.
        """
        for maps in (self.point_map, self.disparity):
            if maps is not None:
                return maps.shape[1], maps.shape[2]
        raise ValueError("expected a prediction with point_map or disparity, got neither")

    def tensors(self) -> dict[str, Tensor]:
        """All tensor fields that are present, by field name (``carry`` not included)."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def to(self, device: torch.device | str) -> "Prediction":
        """The same prediction on another device."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in self.tensors().items()}
        return replace(self, **moved)


@dataclass(frozen=True)
class FrameMaps:
    """Dense result of one frame, as the fusion hands it to the store.

    Attributes:
        frame_index: position in the processed sequence.
        depth: z-depth, NaN where invalid, +inf in the sky.
        confidence: in [0, 1]; 0 where invalid.
        dynamic: probability in [0, 1] that the pixel shows something moving, or None where unknown.
        signs: what the fusion knows about the error of each pixel (see ``fusion.confidence``), or None.
    """

    frame_index: int
    depth: Float[Tensor, "H W"]
    confidence: Float[Tensor, "H W"]
    dynamic: Float[Tensor, "H W"] | None = None
    signs: Float[Tensor, "K H W"] | None = None

    @property
    def valid(self) -> Bool[Tensor, "H W"]:
        """True where a surface is known: finite depth."""
        return torch.isfinite(self.depth)

    def to(self, device: torch.device | str) -> "FrameMaps":
        """The same maps on another device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@runtime_checkable
class FrameArray(Protocol):
    """Frames first, sliced lazily: a numpy array, a zarr array, or anything that gives numpy slices."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class LazyFrames:
    """A ``FrameArray`` computed from others slice by slice; nothing is kept.

    Attributes:
        shape: of the whole array; frames first.
        dtype: of the slices.
        compute: frame index (int) -> array without the frame axis.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    compute: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        frame_key, rest = (key[0], tuple(key[1:])) if isinstance(key, tuple) else (key, ())
        if frame_key is Ellipsis:
            frame_key, rest = slice(None), (Ellipsis, *rest)
        chosen = np.arange(self.shape[0])[frame_key]
        if np.ndim(chosen) == 0:
            return np.asarray(self.compute(int(chosen)), self.dtype)[rest or ...]
        frames = [np.asarray(self.compute(int(index)), self.dtype)[rest or ...] for index in chosen]
        return (
            np.stack(frames) if frames else np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction:
    """4D geometry of a video: per-frame maps and cameras, in one world per scene.

    Maps are lazily sliced: ``reconstruction.depth[3]`` reads one frame and returns a numpy array.

    Attributes:
        depth: [T, H, W] z-depth; NaN invalid, +inf sky; unit by ``scale_kind``.
        confidence: [T, H, W] in [0, 1].
        intrinsics: [T, 3, 3] in pixels of the maps.
        times_s: [T] presentation times in seconds.
        source_frames: [T] frame numbers in the source video.
        scale_kind: ``metric`` (metres) or ``scale`` (one unknown factor for depth and translations of a scene).
        c2w: [T, 4, 4] camera to world, or None when the predictor gave no poses.
        dynamic: [T, H, W] probability in [0, 1] that a pixel moves, or None.
        rgb: [T, H, W, 3] float in [0, 1] at the size of the maps, re-read from the source, or None.
        open_source_rgb: opens the source, and gives the same at its full size; None where it is gone.
        reliable: [T] False for frames that only bad windows (or none) saw.
        scene: [T] scene number; a shot cut starts a new scene with a world of its own.
        provenance: model, weight hash, resolved config, seed, versions, source: JSON values.
        diagnostics: value of every fusion term, windows dropped and why, timings: JSON values.
    Examples:
        Two frames of one pixel, 4 m away; between them the camera goes 1 m to the right.

        >>> scene = Reconstruction(
        ...     depth=np.full((2, 1, 1), 4.0), confidence=np.ones((2, 1, 1)), scale_kind="metric",
        ...     intrinsics=np.stack([[[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]] * 2), times_s=np.arange(2.0),
        ...     source_frames=np.arange(2), c2w=np.stack([np.eye(4), np.eye(4) + np.eye(4, k=3)]))
        >>> scene.points("world")[1].tolist(), scene.points("camera")[1].tolist()
        ([[[1.0, 0.0, 4.0]]], [[[0.0, 0.0, 4.0]]])
        >>> scene.disparity[0].tolist(), scene.to_torch(slice(0, 1))["depth"].shape
        ([[0.25]], torch.Size([1, 1, 1]))
    """

    depth: FrameArray
    confidence: FrameArray
    intrinsics: np.ndarray
    times_s: np.ndarray
    source_frames: np.ndarray
    scale_kind: ScaleKind = "scale"
    c2w: np.ndarray | None = None
    dynamic: FrameArray | None = None
    rgb: FrameArray | None = None
    reliable: np.ndarray | None = None
    scene: np.ndarray | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    open_source_rgb: Callable[[], FrameArray] | None = None

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return self.depth.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the maps."""
        return self.depth.shape[1], self.depth.shape[2]

    @property
    def has_poses(self) -> bool:
        """Whether there are cameras in a world."""
        return self.c2w is not None

    @property
    def disparity(self) -> FrameArray:
        """[T, H, W] 1 / depth: 0 in the sky, NaN where invalid."""

        def compute(t: int) -> np.ndarray:
            with np.errstate(divide="ignore"):
                return 1.0 / np.asarray(self.depth[t], np.float32)

        return LazyFrames(self.depth.shape, np.dtype(np.float32), compute)

    @property
    def valid(self) -> FrameArray:
        """[T, H, W] True where a surface is known: finite depth."""
        return LazyFrames(self.depth.shape, np.dtype(bool), lambda t: np.isfinite(self.depth[t]))

    @property
    def sky(self) -> FrameArray:
        """[T, H, W] True where depth is at infinity."""
        return LazyFrames(self.depth.shape, np.dtype(bool), lambda t: np.isposinf(self.depth[t]))

    def points(self, frame: Literal["camera", "world"] = "world") -> FrameArray:
        """[T, H, W, 3] points; NaN where there is no finite depth.

        Raises:
            ValueError: ``world`` is asked for, but the reconstruction has no poses.
        """
        from geo4d.geometry.cameras import unproject
        from geo4d.geometry.poses import transform

        if frame == "world":
            self._require_poses("world points")

        def compute(t: int) -> np.ndarray:
            depth = torch.from_numpy(np.asarray(self.depth[t], np.float32))
            depth = torch.where(torch.isfinite(depth), depth, torch.nan)
            points = unproject(depth, torch.from_numpy(np.asarray(self.intrinsics[t], np.float32)))
            if frame == "world" and self.c2w is not None:
                points = transform(torch.from_numpy(np.asarray(self.c2w[t], np.float32)), points)
            return points.numpy()

        return LazyFrames((*self.depth.shape, 3), np.dtype(np.float32), compute)

    def rays(self, frame: Literal["camera", "world"] = "world") -> FrameArray:
        """[T, H, W, 6] Pluecker rays: unit direction, then moment = origin x direction, in ``frame``.

        Raises:
            ValueError: ``world`` is asked for, but the reconstruction has no poses.
        """
        from geo4d.geometry.maps import cameras_to_ray_map

        if frame == "world":
            self._require_poses("world rays")

        def compute(t: int) -> np.ndarray:
            c2w = np.eye(4) if frame == "camera" or self.c2w is None else self.c2w[t]
            return cameras_to_ray_map(
                torch.from_numpy(np.asarray(self.intrinsics[t], np.float32)),
                torch.from_numpy(np.asarray(c2w, np.float32)),
                self.size,
            ).numpy()

        return LazyFrames((*self.depth.shape, 6), np.dtype(np.float32), compute)

    def to_torch(
        self, frames: int | slice | Sequence[int] | None = None, *, device: torch.device | str = "cpu"
    ) -> dict[str, Tensor]:
        """Fields of some frames as tensors by their names, frames first, as they are stored; none that is None.

        Args:
            frames: one frame, a slice, or a list; None reads all.
        """
        chosen = np.arange(self.num_frames)[slice(None) if frames is None else frames].reshape(-1)
        maps, cameras = ["depth", "confidence", "dynamic", "rgb"], ["intrinsics", "c2w"]
        names = [*maps, *cameras, "times_s", "source_frames", "reliable", "scene"]
        fields = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        stacked = {
            name: np.stack([field[t] for t in chosen]) if len(chosen) else np.empty((0, *field.shape[1:]))
            for name, field in fields.items()
        }
        return {name: torch.from_numpy(array).to(device) for name, array in stacked.items()}

    def export(
        self, path: str | Path, format: str | None = None, *, overwrite: bool = False, **options: Any
    ) -> list[Path]:
        """Write files for another tool: ``scene.export("out.ply", voxel_size=0.01)``; docs/export.md lists formats.

        Args:
            path, format, overwrite: as in ``geo4d.export.save``; without a format, the suffix of ``path`` says it.
            options: fields of ``geo4d.export.ExportConfig``, such as ``frames``, ``up``, ``scale``.
        """
        from geo4d.export.saving import save_with

        return save_with(self, path, format, overwrite=overwrite, options=options)

    def __repr__(self) -> str:
        from geo4d.viewer.summary import summary_lines

        return "\n".join(summary_lines(self))

    def _repr_html_(self) -> str:
        from geo4d.viewer.summary import summary_html

        return summary_html(self)

    def _require_poses(self, what: str) -> None:
        if self.c2w is None:
            raise ValueError(
                f"expected a reconstruction with poses for {what}, got one without; "
                "add them with 'geo4d pose' or ask for frame='camera'"
            )
