"""What a run is made of: the video as it was asked for, its shots, the model, what is known of the camera."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.config import RunConfig
from geo4d.datasets.base import Recording
from geo4d.datasets.recordings import find_recording, picture_names
from geo4d.formats.bags import bag_kind
from geo4d.geometry.cameras import centred_intrinsics, focal_from_fov, intrinsics_matrix, resize_intrinsics
from geo4d.geometry.distortion import Distortion
from geo4d.models.base import Predictor, load_predictor
from geo4d.results.provenance import versions
from geo4d.run.plan import RunPlan
from geo4d.video.bags import find_camera
from geo4d.video.first_look import FirstLook
from geo4d.video.io import Video
from geo4d.video.lens import Lens

DECIDE_NO_WINDOW = (
    *("times", "tries", "fusion", "output_size", "keep_windows", "allow_partial"),
    *("trajectory", "trajectory_use", "depth", "depth_unit", "time_offset"),
)
"""Settings that may change when a run is resumed: they come after the windows."""


def open_clip(
    video: str | Path | np.ndarray | Tensor,
    config: RunConfig,
    times_s: Sequence[float] | np.ndarray | None = None,
    look: FirstLook | None = None,
) -> tuple[Video, RunConfig]:
    """The clip, and the settings with what its data set knows of the camera; what the user gave wins.

    Args:
        look: sees the frames while a video file is opened.
    """
    times = config.times if times_s is None else times_s
    reading: dict[str, Any] = {"fps": config.fps, "times": times, "pictures": config.pictures}
    reading["topic"] = config.topic
    recording = None
    if isinstance(video, str | Path) and config.pictures is None:
        recording = _bag(Path(video), config) or find_recording(Path(video))
    if recording is not None and recording.files and isinstance(video, str | Path):
        reading["pictures"] = picture_names(recording, Path(video))
        if config.fps is None and times is None:
            reading["times"] = recording.times_s
    wanted = config.distortion
    distortion = None if wanted in (None, "none") else Distortion.parse(str(wanted))
    lens = None
    if distortion is not None and config.intrinsics is not None:
        lens = Lens(distortion, config.intrinsics)
    clip = Video(
        video,
        start=config.start,
        stop=config.stop,
        stride=config.stride,
        max_size=config.max_size,
        value_range=config.value_range,
        allow_partial=config.allow_partial,
        look=look,
        lens=lens,
        **reading,
    )
    if recording is not None:
        known = config.intrinsics is not None or config.fov_deg is not None
        intrinsics = recording.intrinsics_for(clip.source_size)
        if intrinsics is not None and not known:
            config = replace(config, intrinsics=intrinsics)
            stated = recording.distortion if wanted is None else distortion
            lens = None if stated is None else Lens(stated, intrinsics)
        clip.notes = (*recording.notes, recording.camera_note(clip.source_size, known), *clip.notes)
    if distortion is not None and lens is None:
        clip.close()
        raise ValueError(
            "expected --intrinsics FX FY CX CY with --distortion: its numbers belong to a camera, got none"
        )
    if lens is not None:
        if clip.lens is None:
            clip.undistort(lens)
        config = replace(config, intrinsics=lens.pinhole(clip.source_size))
    return clip, config


def _bag(video: Path, config: RunConfig) -> Recording | None:
    """What a ROS bag or MCAP file says of the camera; its pictures are found when it is opened."""
    kind = bag_kind(video)
    if kind is None:
        return None
    camera = find_camera(video, config.topic)
    return Recording(
        f"the {kind}", (), np.zeros(0), camera.intrinsics, camera.size, camera.words, (), camera.distortion
    )


def load_model(
    model: str | Predictor, options: Mapping[str, Any] | None, config: RunConfig, device: str
) -> Predictor:
    """A predictor by name with its options, or the one that was given.

    Raises:
        ValueError: an option is of the wrong type.
    """
    if not isinstance(model, str):
        return model
    chosen = dict(options or {})
    if config.num_steps is not None:
        chosen["num_steps"] = config.num_steps
    try:
        return load_predictor(model, weights=config.weights, device=device, dtype=config.dtype, **chosen)
    except TypeError as error:
        if not chosen:
            raise
        raise ValueError(
            f"expected options that the model {model} has, of the right types, got {chosen}: {error}"
        ) from error


def require_camera(clip: Video, config: RunConfig) -> None:
    """
    Raises:
        ValueError: intrinsics that no camera of such a picture has: a field of view outside 0.1 to 179 degrees, pixels
            more than four times as wide as high (or the reverse), a principal point more than a picture away from it.
    """
    if config.intrinsics is None:
        return
    (height, width), (fx, fy, cx, cy) = clip.source_size, config.intrinsics
    fields = [math.degrees(2 * math.atan2(side, 2 * focal)) for side, focal in ((width, fx), (height, fy))]
    near = -width <= cx <= 2 * width and -height <= cy <= 2 * height
    if not (all(0.1 <= field <= 179 for field in fields) and 0.25 <= fx / fy <= 4 and near):
        raise ValueError(
            f"expected fx fy cx cy of a camera, in pixels of the picture of {width}x{height} as it is shown, got "
            f"{fx:g} {fy:g} {cx:g} {cy:g}: fields of view of {fields[0]:.3g} and {fields[1]:.3g} degrees, pixels "
            f"{fy / fx:.3g} times as wide as high"
        )


def known_intrinsics(clip: Video, plan: RunPlan, config: RunConfig) -> Float[Tensor, "T 3 3"] | None:
    """Intrinsics that the user gave, in pixels of the model's pictures."""
    matrix = known_matrix(plan.model_size, clip, config)
    return None if matrix is None else matrix.expand(clip.num_frames, 3, 3).contiguous()


def known_matrix(size: tuple[int, int], clip: Video, config: RunConfig) -> Float[Tensor, "3 3"] | None:
    """Intrinsics that the user gave, in pixels of pictures of ``size``."""
    height, width = clip.source_size
    if config.intrinsics is not None:
        fx, fy, cx, cy = torch.tensor(config.intrinsics)
        matrix = intrinsics_matrix(fx, fy, cx, cy)
    elif config.fov_deg is not None:
        fov = torch.deg2rad(torch.tensor(config.fov_deg))
        matrix = centred_intrinsics(focal_from_fov(fov, width), (height, width))
    else:
        return None
    return resize_intrinsics(matrix, (height, width), size)


def list_inputs(clip: Video, predictor: Predictor, plan: RunPlan, config: RunConfig) -> dict[str, Any]:
    """What decides the windows of a run: a resumed run must agree in all of it."""
    return {
        "source": {"sha256": clip.sha256(), "num_frames": clip.num_frames, "scenes": plan.scenes},
        "model": describe_model(predictor),
        "config": {f.name: getattr(config, f.name) for f in fields(config) if f.name not in DECIDE_NO_WINDOW},
        "device": plan.device,
        "model_size": plan.model_size,
        "versions": versions(),
    }


def describe_model(predictor: Predictor) -> dict[str, Any]:
    """What a result says about the model that it came from."""
    info = predictor.info
    return {
        "name": info.name,
        "weights_sha256": info.weights_sha256,
        "weights_compared": info.weights_compared,
        "licence": info.licence,
        "config": info.config,
        "remark": info.remark,
    }
