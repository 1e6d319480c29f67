"""Settings of a run. Imports nothing heavy, so that the command line can describe itself quickly."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

Precision = Literal["float16", "float32"]
Wide = Literal["dilated", "keyframes", "loops"]


@dataclass(frozen=True)
class RunConfig:
    """Settings of a run; the flags of ``geo4d reconstruct`` are these fields.

    Attributes:
        start: first frame to use.
        stop: frame to stop before; none takes all.
        stride: use every n-th frame.
        max_size: longest side of the frames in pixels before anything else sees them; none keeps the source's.
        fps: frames per second of a folder of pictures, instead of the times that it states; video files state theirs.
        times: file with the times of the frames of a folder of pictures: one a line, or 'time name' as in TUM's rgb.txt.
        pictures: which pictures of a folder: a pattern of names, * for anything and # for a number; only '*' itself takes
            several sequences together.
        topic: with the pictures of a ROS bag or MCAP file, where several topics hold some.
        value_range: values that become black and white in pictures of more than 8 bits; none takes the range of the
            whole sequence.
        allow_partial: go on with the readable frames of a damaged source.
        split_shots: look for cuts; each shot becomes a scene with a world of its own.
        fov_deg: known horizontal field of view in degrees.
        intrinsics: known fx fy cx cy in pixels of the picture as it is shown: upright, with square pixels, before
            max_size; pixel centres at +0.5.
        trajectory: known path of the camera in metres (TUM, KITTI poses, EuRoC csv), matched by time; makes the result
            metric.
        trajectory_use: what it gives: the scale, the solved cameras stay; or the poses themselves, in its world.
        depth: folder of measured depth (16-bit PNG, EXR, npy), matched by name or time; makes the result metric.
        depth_unit: metres of value 1 in these files, such as 0.001 for millimetres; none takes what they state.
        time_offset: seconds to add to the times of the trajectory or the depth, so that they are those of the frames.
        distortion: of the pictures, which are undistorted when they are read: radtan:K1,K2,P1,P2[,K3] (OpenCV, ROS
            plumb_bob) or fisheye:K1,K2,K3,K4 (equidistant), with intrinsics; none takes what a data set's folder states,
            'none' takes the pictures as they are.
        weights: folder or file with the model's weights; none takes the bundled or pulled ones.
        device: torch device; none takes a CUDA device if there is one, else Apple's GPU (mps) for the models tiny and
            geo4d, else the CPU.
        dtype: compute type of the network; none picks by device.
        num_steps: sampling steps of a diffusion model; none takes the model's default.
        window_stride: frames between window starts; none takes the model's default.
        wide_windows: further windows against drift in long videos: dilated (every 2nd and every 3rd frame), keyframes
            (every 12th), loops (half of the frames from each of two visits to a place).
        fusion: how windows are aligned: corrected (default) or published, the objective of the paper's code.
        focal: shared (one focal length for each shot), per_frame (zoom), or auto: per_frame where the tracks tell that
            the lens zooms.
        motion: use cameras and disparity from tracked points, for models that take them.
        seed: of all noise.
        tries: how often a window that disagrees with its neighbours is sampled again with another seed.
        output_size: size of the stored maps: source (at most 1024 on the long side), model, or WIDTHxHEIGHT.
        precision: of the stored maps and of window predictions on disk.
        keep_windows: keep the window predictions in the result.
    """

    start: int = 0
    stop: int | None = None
    stride: int = 1
    max_size: int | None = None
    fps: float | None = None
    times: Path | None = None
    pictures: str | None = None
    topic: str | None = None
    value_range: tuple[float, float] | None = None
    allow_partial: bool = False
    split_shots: bool = True
    fov_deg: float | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    distortion: str | None = None
    trajectory: Path | None = None
    trajectory_use: Literal["scale", "poses"] = "scale"
    depth: Path | None = None
    depth_unit: float | None = None
    time_offset: float = 0.0
    weights: Path | None = None
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    num_steps: int | None = None
    window_stride: int | None = None
    wide_windows: tuple[Wide, ...] = ()
    fusion: Literal["corrected", "published"] = "corrected"
    focal: Literal["auto", "shared", "per_frame"] = "auto"
    motion: bool = True
    seed: int = 0
    tries: int = 2
    output_size: str = "source"
    precision: Precision = "float16"
    keep_windows: bool = False

    @property
    def zoom(self) -> bool | None:
        """Whether every frame has a focal length of its own; None: the tracks tell."""
        return None if self.focal == "auto" else self.focal == "per_frame"

    def __post_init__(self) -> None:
        if self.fov_deg is not None and not 1 <= self.fov_deg <= 175:
            raise ValueError(f"expected a field of view of 1 to 175 degrees, got {self.fov_deg}")
        if self.fov_deg is not None and self.intrinsics is not None:
            raise ValueError("expected a field of view or intrinsics, got both")
        if self.intrinsics is not None:
            check_intrinsics(self.intrinsics)
        if self.window_stride is not None and self.window_stride < 1:
            raise ValueError(f"expected a window stride of at least 1 frame, got {self.window_stride}")
        if self.num_steps is not None and self.num_steps < 1:
            raise ValueError(f"expected at least 1 sampling step, got {self.num_steps}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"expected a seed of 0 to 2**63 - 1, got {self.seed}")
        if self.fps is not None and self.times is not None:
            raise ValueError("expected fps or a file of times, got both")
        if self.trajectory is not None and self.depth is not None:
            raise ValueError(
                "expected a trajectory or a folder of depth, got both; one of them decides the scale"
            )
        if self.trajectory_use != "scale" and self.trajectory is None:
            raise ValueError("expected a trajectory with trajectory_use, got none")
        if self.depth_unit is not None and (self.depth is None or not 0 < self.depth_unit < math.inf):
            raise ValueError(
                f"expected a depth_unit > 0, the metres of value 1, with a folder of depth, got {self.depth_unit}"
            )
        if not math.isfinite(self.time_offset) or (self.time_offset and not (self.trajectory or self.depth)):
            raise ValueError(
                f"expected a time_offset in seconds with a trajectory or a folder of depth, got {self.time_offset}"
            )
        if self.tries < 0:
            raise ValueError(f"expected tries >= 0, got {self.tries}")
        parse_size(self.output_size)


def check_intrinsics(intrinsics: tuple[float, float, float, float]) -> None:
    """
    Raises:
        ValueError: fx fy cx cy are not finite, or fx or fy is not positive.
    """
    if not all(math.isfinite(value) for value in intrinsics) or min(intrinsics[:2]) <= 0:
        raise ValueError(f"expected intrinsics fx fy cx cy, all finite, with fx, fy > 0, got {intrinsics}")


def make_config(**settings: Any) -> RunConfig:
    """A config from keywords.

    Raises:
        ValueError: an unknown keyword; the message lists the known ones.
    """
    known = [f.name for f in fields(RunConfig)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"unknown setting {', '.join(unknown)}; expected some of {', '.join(known)}")
    return RunConfig(**settings)


_LONGEST_SIDE = 2**16


def parse_size(text: str) -> tuple[int, int] | Literal["source", "model"]:
    """``source``, ``model`` or (height, width) from ``WIDTHxHEIGHT``.

    Raises:
        ValueError: something else.
    """
    if text == "source":
        return "source"
    if text == "model":
        return "model"
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ValueError(f"expected an output size of source, model or WIDTHxHEIGHT, got {text!r}")
    if max(int(width), int(height)) > _LONGEST_SIDE:
        raise ValueError(f"expected an output size of at most {_LONGEST_SIDE} pixels a side, got {text}")
    return int(height), int(width)
