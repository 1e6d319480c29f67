"""Scene -> colour, depth, masks, flow, tracks, cameras: all exact, all by one thread, bit-identical for equal input.

``make_scene`` finds an acceptable scene, ``render_clip`` draws all of it, ``iter_frames`` draws frame by frame
(clips of thousands of frames), ``track_points`` follows surface points.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch import Tensor

from geo4d.errors import MissingExtraError
from geo4d.synthetic.draw import draw_scene
from geo4d.synthetic.scene import Scene, SceneConfig, SceneMix, sample_config
from geo4d.synthetic.textures import LEVEL_OFFSETS, random_stream, texture_bank

MAX_ATTEMPTS = 64
_PREVIEW_ROWS = 14
_CURVE_STEPS = 1024


@dataclass(frozen=True)
class PointTracks:
    """Surface points followed through a clip.

    Attributes:
        pixels: image positions (x, y), pixel centres at +0.5; NaN behind the camera.
        points: world positions, metres.
        visible: inside the picture and not hidden.
        query_frame: the frame each point was picked in.
        dynamic: the point sits on something that moves.
    """

    pixels: Float32[Tensor, "N T 2"]
    points: Float32[Tensor, "N T 3"]
    visible: Bool[Tensor, "N T"]
    query_frame: Int[Tensor, " N"]
    dynamic: Bool[Tensor, " N"]


@dataclass(frozen=True)
class SyntheticFrame:
    """One frame and its truth; see ``SyntheticClip`` for the fields."""

    index: int
    rgb: UInt8[Tensor, "H W 3"]
    depth: Float32[Tensor, "H W"]
    dynamic: Bool[Tensor, "H W"]
    object_id: Int[Tensor, "H W"]
    intrinsics: Float32[Tensor, "3 3"]
    c2w: Float32[Tensor, "4 4"]
    time_s: float


@dataclass(frozen=True)
class SyntheticClip:
    """A rendered clip with its exact truth. Metres, seconds, OpenCV axes, pixel centres at +0.5.

    Attributes:
        rgb: colour.
        depth: z-depth along the ray through the pixel centre; +inf in the sky.
        valid: True where ``depth`` is finite.
        dynamic: True on things that move or deform in the world.
        object_id: 0 in the sky, else the number of the object.
        intrinsics, c2w: exact cameras; c2w is camera to world.
        times_s: seconds from the first frame.
        flow: displacement in pixels from frame t to t + 1 of what frame t shows, moving things and sky included; NaN
            where that lands behind the camera. None unless asked for.
        flow_visible: what frame t shows is seen in frame t + 1, too: neither hidden nor out of the picture.
        tracks: surface points over all frames, or None unless asked for.
        config: the scene it shows.
    """

    rgb: UInt8[Tensor, "T H W 3"]
    depth: Float32[Tensor, "T H W"]
    valid: Bool[Tensor, "T H W"]
    dynamic: Bool[Tensor, "T H W"]
    object_id: Int[Tensor, "T H W"]
    intrinsics: Float32[Tensor, "T 3 3"]
    c2w: Float32[Tensor, "T 4 4"]
    times_s: Float[Tensor, " T"]
    config: SceneConfig
    flow: Float32[Tensor, "T-1 H W 2"] | None = None
    flow_visible: Bool[Tensor, "T-1 H W"] | None = None
    tracks: PointTracks | None = None

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return self.rgb.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[2]


def make_scene(config: SceneConfig) -> Scene:
    """The first draw for ``config`` that shows enough: geometry, depth range, nothing in front of the lens.

    Raises:
        MissingExtraError: numba is not installed.
        RuntimeError: no draw was acceptable.
    """
    kernels = _kernels()
    for attempt in range(MAX_ATTEMPTS):
        scene = draw_scene(config, attempt)
        if _acceptable(kernels, scene):
            return scene
    raise RuntimeError(f"expected an acceptable scene within {MAX_ATTEMPTS} draws of {config}, got none")


def render_clip(
    scene: Scene, size: tuple[int, int], supersample: int = 1, with_flow: bool = False, num_tracks: int = 0
) -> SyntheticClip:
    """Draw all frames of a scene.

    Args:
        scene: from ``make_scene``.
        size: (height, width) in pixels; the aspect ratio the scene was made for, or close to it.
        supersample: colour from n x n rays per pixel; depth and masks are those of the centre ray all the same.
        with_flow: also exact flow and its visibility.
        num_tracks: number of surface points to follow, picked over the clip at random.
    Raises:
        MissingExtraError: numba is not installed.
    """
    frames = list(iter_frames(scene, size, supersample=supersample))
    flow, flow_visible = _flow(scene, size) if with_flow else (None, None)
    depth = torch.stack([frame.depth for frame in frames])
    valid = np.isfinite(depth.numpy())
    tracks = None
    if num_tracks > 0:
        rng = random_stream(scene.config.seed, 5)
        frame = rng.randint(0, scene.num_frames, num_tracks)
        pixel = rng.rand(num_tracks, 2) * np.array([size[1], size[0]])
        tracks = track_points(
            scene, size, torch.from_numpy(frame), torch.from_numpy(pixel.astype(np.float32))
        )
    return SyntheticClip(
        rgb=torch.stack([frame.rgb for frame in frames]),
        depth=depth,
        valid=torch.from_numpy(valid),
        dynamic=torch.stack([frame.dynamic for frame in frames]),
        object_id=torch.stack([frame.object_id for frame in frames]),
        intrinsics=torch.stack([frame.intrinsics for frame in frames]),
        c2w=torch.stack([frame.c2w for frame in frames]),
        times_s=torch.from_numpy(scene.times_s.copy()),
        config=scene.config,
        flow=flow,
        flow_visible=flow_visible,
        tracks=tracks,
    )


def iter_frames(
    scene: Scene, size: tuple[int, int], frames: Iterable[int] | None = None, supersample: int = 1
) -> Iterator[SyntheticFrame]:
    """Draw the given frames (default: all) one at a time; nothing is kept.

    Raises:
        MissingExtraError: numba is not installed.
        ValueError: ``supersample`` is not positive.
    """
    kernels = _kernels()
    if supersample < 1:
        raise ValueError(f"expected supersample >= 1, got {supersample}")
    bank = texture_bank(scene.config.bank)
    bank.ensure(np.append(scene.texture, scene.cloud_texture))
    environment = _environment(kernels, scene)
    height, width = size
    fine = (height * supersample, width * supersample)
    factor = _exposure(kernels, scene)
    curve = np.linspace(0.0, 1.0, _CURVE_STEPS) ** (1.0 / scene.development.gamma)
    color = np.empty((*fine, 3), np.float32)
    fine_depth, fine_index = np.empty(fine, np.float64), np.empty(fine, np.int64)
    for t in range(scene.num_frames) if frames is None else frames:
        prims = _primitives(kernels, scene, t)
        depth, index = np.empty(size, np.float64), np.empty(size, np.int64)
        view = _view(kernels, scene, t, size)
        kernels.cast_frame(prims, bank.texels, LEVEL_OFFSETS, view, depth, index)
        if supersample == 1:
            fine_view, fine_depth, fine_index = view, depth, index
        else:
            fine_view = _view(kernels, scene, t, fine)
            kernels.cast_frame(prims, bank.texels, LEVEL_OFFSETS, fine_view, fine_depth, fine_index)
        kernels.shade_frame(
            prims, environment, bank.texels, LEVEL_OFFSETS, fine_view, fine_depth, fine_index, color
        )
        rgb = _develop(kernels, scene, t, color, supersample, curve, size, factor)
        hit = index >= 0
        owner = np.maximum(index, 0)
        yield SyntheticFrame(
            index=t,
            rgb=torch.from_numpy(rgb),
            depth=torch.from_numpy(np.where(hit, depth, np.inf).astype(np.float32)),
            dynamic=torch.from_numpy(scene.dynamic[owner] & hit),
            object_id=torch.from_numpy(np.where(hit, scene.object_of[owner], 0).astype(np.int32)),
            intrinsics=torch.from_numpy(_intrinsics(scene, t, size)),
            c2w=torch.from_numpy(scene.c2w[t].astype(np.float32)),
            time_s=float(scene.times_s[t]),
        )


def cast_depth(
    scene: Scene, size: tuple[int, int], frame: int
) -> tuple[Float32[Tensor, "H W"], Bool[Tensor, "H W"]]:
    """Depth (+inf in the sky) and dynamic mask of one frame, without drawing it.

    Raises:
        MissingExtraError: numba is not installed.
        IndexError: there is no such frame.
    """
    kernels = _kernels()
    if not 0 <= frame < scene.num_frames:
        raise IndexError(f"expected a frame in 0..{scene.num_frames - 1}, got {frame}")
    bank = texture_bank(scene.config.bank)
    bank.ensure(scene.texture[scene.cutout >= 0.0])
    depth, index = np.empty(size, np.float64), np.empty(size, np.int64)
    prims, view = _primitives(kernels, scene, frame), _view(kernels, scene, frame, size)
    kernels.cast_frame(prims, bank.texels, LEVEL_OFFSETS, view, depth, index)
    hit = index >= 0
    dynamic = scene.dynamic[np.maximum(index, 0)] & hit
    return torch.from_numpy(np.where(hit, depth, np.inf).astype(np.float32)), torch.from_numpy(dynamic)


def scene_cameras(
    scene: Scene, size: tuple[int, int]
) -> tuple[Float32[Tensor, "T 3 3"], Float32[Tensor, "T 4 4"]]:
    """Exact intrinsics (for pictures of ``size``) and c2w of all frames."""
    intrinsics = np.stack([_intrinsics(scene, t, size) for t in range(scene.num_frames)])
    return torch.from_numpy(intrinsics), torch.from_numpy(scene.c2w.astype(np.float32))


def track_points(
    scene: Scene, size: tuple[int, int], query_frame: Int[Tensor, " N"], query_pixel: Float[Tensor, "N 2"]
) -> PointTracks:
    """Follow what is seen at ``query_pixel`` (x, y) of ``query_frame`` through all frames.

    Points in the sky are dropped, so the result may have fewer than N rows.

    Raises:
        MissingExtraError: numba is not installed.
        ValueError: a query frame is outside of the clip.
    """
    kernels = _kernels()
    if len(query_frame) and not 0 <= int(query_frame.min()) <= int(query_frame.max()) < scene.num_frames:
        raise ValueError(f"expected query frames in 0..{scene.num_frames - 1}, got {query_frame.tolist()}")
    bank = texture_bank(scene.config.bank)
    bank.ensure(scene.texture)
    queries = query_frame.numpy()
    wanted = query_pixel.double().numpy()
    local, owner = np.zeros((len(queries), 3)), np.full(len(queries), -1, np.int64)
    for t in np.unique(queries):
        prims, view = _primitives(kernels, scene, int(t)), _view(kernels, scene, int(t), size)
        boxes = kernels.screen_boxes(prims, view, *size)
        for n in np.flatnonzero(queries == t):
            u, v = wanted[n]
            depth, found = kernels.cast_pixel(
                prims, bank.texels, LEVEL_OFFSETS, view, boxes, u, v, kernels.FAR
            )
            if found >= 0:
                ray = np.array([(u - view.cx) / view.focal, (v - view.cy) / view.focal, 1.0])
                world = view.c2w @ np.append(ray * depth, 1.0)
                local[n], owner[n] = (prims.w2l[found] @ world)[:3], found
    kept = owner >= 0
    local, owner = local[kept], owner[kept]
    count, total = len(owner), scene.num_frames
    pixels, points = np.empty((total, count, 2)), np.empty((total, count, 3))
    visible = np.zeros((total, count), bool)
    for t in range(total):
        prims, view = _primitives(kernels, scene, t), _view(kernels, scene, t, size)
        kernels.follow_points(
            prims, bank.texels, LEVEL_OFFSETS, view, *size, local, owner, pixels[t], points[t], visible[t]
        )
    return PointTracks(
        pixels=torch.from_numpy(pixels.astype(np.float32).swapaxes(0, 1).copy()),
        points=torch.from_numpy(points.astype(np.float32).swapaxes(0, 1).copy()),
        visible=torch.from_numpy(visible.T.copy()),
        query_frame=query_frame[torch.from_numpy(kept)],
        dynamic=torch.from_numpy(scene.dynamic[owner]),
    )


def iter_clips(
    seed: int,
    size: tuple[int, int],
    num_frames: int,
    mix: SceneMix | None = None,
    start: int = 0,
    step: int = 1,
    stop: int | None = None,
    supersample: int = 1,
    with_flow: bool = False,
) -> Iterator[SyntheticClip]:
    """Endless stream of distinct clips; clip ``i`` is a pure function of ``(seed, i, size, num_frames, mix)``.

    Args:
        seed: of the stream.
        size: (height, width) in pixels.
        num_frames: length of every clip.
        mix: how often which kind of scene and camera occurs.
        start, step, stop: clips ``start, start + step, ...`` below ``stop``: to resume a stream, or to share it among
            workers (worker k of n: ``start=k, step=n``).
        supersample, with_flow: as in ``render_clip``.
    """
    index = start
    while stop is None or index < stop:
        config = sample_config(clip_seed(seed, index), num_frames, size[0] / size[1], mix)
        yield render_clip(make_scene(config), size, supersample, with_flow)
        index += step


def clip_seed(seed: int, index: int) -> int:
    """Seed of clip ``index`` of the stream ``seed``."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _kernels() -> ModuleType:
    try:
        from geo4d.synthetic import kernels
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise MissingExtraError("numba", "synthetic", "rendering synthetic scenes") from error
    return kernels


def _primitives(kernels: ModuleType, scene: Scene, t: int) -> Any:
    return kernels.Primitives(
        scene.shape,
        scene.l2w[t],
        scene.w2l[t],
        scene.size,
        scene.offset,
        scene.tint,
        scene.texture,
        scene.texture_scale,
        scene.cutout,
        scene.specular,
        scene.emission,
        scene.shadow,
        scene.object_first,
        scene.terrain,
    )


def _environment(kernels: ModuleType, scene: Scene) -> Any:
    return kernels.Environment(
        scene.light,
        scene.is_lamp,
        float(scene.ambient),
        float(scene.fog),
        scene.horizon,
        scene.zenith,
        scene.cloud,
        int(scene.cloud_texture),
        float(scene.cloud_level),
        float(scene.cloud_contrast),
    )


def _view(kernels: ModuleType, scene: Scene, t: int, size: tuple[int, int]) -> Any:
    height, width = size
    return kernels.View(scene.c2w[t], float(scene.focal[t] * width), 0.5 * width, 0.5 * height)


def _intrinsics(scene: Scene, t: int, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    focal = scene.focal[t] * width
    return np.array([[focal, 0.0, 0.5 * width], [0.0, focal, 0.5 * height], [0.0, 0.0, 1.0]], np.float32)


def _preview_frames(scene: Scene) -> list[int]:
    last = scene.num_frames - 1
    return sorted({0, last // 2, last})


def _preview_size(scene: Scene) -> tuple[int, int]:
    return _PREVIEW_ROWS, max(4, round(_PREVIEW_ROWS / scene.config.aspect))


def is_acceptable(scene: Scene) -> bool:
    """A cheap look at three frames finds enough geometry, not one surface, nothing too near, the subject in view.

    Raises:
        MissingExtraError: numba is not installed.
    """
    return _acceptable(_kernels(), scene)


def _acceptable(kernels: ModuleType, scene: Scene) -> bool:
    """Cheap look at three frames: enough geometry, not one surface, nothing too near, the subject in view."""
    bank = texture_bank(scene.config.bank)
    bank.ensure(scene.texture[scene.cutout >= 0.0])
    size = _preview_size(scene)
    depths, indices = [], []
    for t in _preview_frames(scene):
        depth, index = np.empty(size, np.float64), np.empty(size, np.int64)
        prims, view = _primitives(kernels, scene, t), _view(kernels, scene, t, size)
        kernels.cast_frame(prims, bank.texels, LEVEL_OFFSETS, view, depth, index)
        hit = index >= 0
        if hit.mean() < 0.25:
            return False
        near, far = np.percentile(np.where(hit, 1.0 / depth, 0.0), [97.0, 3.0])
        if depth.min() < 0.3 or near < 1.6 * far:
            return False
        depths.append(depth)
        indices.append(index)
    depth, index = np.stack(depths), np.stack(indices)
    hit = index >= 0
    if hit.mean() < 0.35 or np.percentile(depth[hit], 5.0) < 0.5:
        return False
    if scene.config.kind != "terrain" and np.bincount(index[hit]).max() > 0.85 * index.size:
        return False
    # the first primitive of a street, terrain or field is its ground: something must stand on it
    if scene.config.kind in ("street", "terrain", "object_on_ground"):
        ground = np.flatnonzero(scene.size[:, 0] > 250.0) if scene.config.kind != "terrain" else [0]
        if (hit & (scene.size[np.maximum(index, 0), 1] > 0.05) & ~np.isin(index, ground)).mean() < (
            0.03 if scene.config.kind == "terrain" else 0.08
        ):
            return False
    if scene.subjects:
        seen = np.isin(np.where(hit, scene.object_of[np.maximum(index, 0)], 0), scene.subjects).mean((1, 2))
        return bool(seen.mean() > 0.06 and seen.max() < 0.75)
    return True


def _exposure(kernels: ModuleType, scene: Scene) -> float:
    """Factor that takes a high percentile of the brightness of three small frames to the wanted level."""
    bank = texture_bank(scene.config.bank)
    size = _preview_size(scene)
    environment = _environment(kernels, scene)
    colors = []
    for t in _preview_frames(scene):
        prims, view = _primitives(kernels, scene, t), _view(kernels, scene, t, size)
        depth, index = np.empty(size, np.float64), np.empty(size, np.int64)
        color = np.empty((*size, 3), np.float32)
        kernels.cast_frame(prims, bank.texels, LEVEL_OFFSETS, view, depth, index)
        kernels.shade_frame(prims, environment, bank.texels, LEVEL_OFFSETS, view, depth, index, color)
        colors.append(color)
    percentile = random_stream(scene.config.seed, 6).uniform(85.0, 98.0)
    bright = float(np.percentile(np.stack(colors), percentile))
    return scene.development.factor / max(0.05, bright)


def _develop(
    kernels: ModuleType,
    scene: Scene,
    t: int,
    color: np.ndarray,
    block: int,
    curve: np.ndarray,
    size: tuple[int, int],
    factor: float,
) -> np.ndarray:
    look = scene.development
    rgb = np.empty((*size, 3), np.uint8)
    kernels.develop_frame(
        color,
        factor,
        block,
        look.gains,
        look.contrast,
        look.pivot,
        look.saturation,
        curve,
        look.noise,
        look.noise_seed * 4096 + t,
        rgb,
    )
    return rgb


def _flow(scene: Scene, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    kernels = _kernels()
    bank = texture_bank(scene.config.bank)
    bank.ensure(scene.texture)
    pairs = scene.num_frames - 1
    flow = np.empty((pairs, *size, 2), np.float32)
    visible = np.empty((pairs, *size), bool)
    for t in range(pairs):
        source, target = _primitives(kernels, scene, t), _primitives(kernels, scene, t + 1)
        view, next_view = _view(kernels, scene, t, size), _view(kernels, scene, t + 1, size)
        depth, index = np.empty(size, np.float64), np.empty(size, np.int64)
        kernels.cast_frame(source, bank.texels, LEVEL_OFFSETS, view, depth, index)
        kernels.flow_frame(
            source, target, bank.texels, LEVEL_OFFSETS, view, next_view, depth, index, flow[t], visible[t]
        )
    return torch.from_numpy(flow), torch.from_numpy(visible)
