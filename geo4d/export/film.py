"""What USD, Nuke and GLB scenes share: time line, film back, clipping range, and the plate behind the camera."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from geo4d.export.common import frame_notes
from geo4d.formats.images import save_image
from geo4d.formats.movies import usual_rate
from geo4d.types import Reconstruction

log = logging.getLogger(__name__)

FILM_BACK_MM = 36.0
"""Width of the film back along the longer side of the picture, as full-frame still cameras have it."""

_STANDARD = np.array([rate * drop for rate in range(1, 241) for drop in (1.0, 1000 / 1001)])


@dataclass(frozen=True)
class TimeLine:
    """Numbers of the frames in a scene of an animation program, one after the other.

    Attributes:
        first: number of the first frame.
        fps: frames per second.
        count: frames.
        is_regular: False where some frame lies more than half a frame from its time in the source.
    """

    first: int
    fps: float
    count: int
    is_regular: bool

    @property
    def numbers(self) -> range:
        """Frame numbers on the time line."""
        return range(self.first, self.first + self.count)

    def words(self) -> str:
        """The time line as a sentence for files and people."""
        kind = (
            "a constant rate"
            if self.is_regular
            else "a variable rate: times on this line are not those of the source"
        )
        return f"frames {self.first} to {self.first + self.count - 1} at {self.fps:.6g} per second, {kind}"


def time_line(times_s: Float[np.ndarray, " T"], first: int) -> TimeLine:
    """A time line with one number for every frame, so that cameras and plate agree whatever the times.

    Args:
        times_s: of the exported frames, seconds.
        first: number of the first frame, >= 0.
    """
    if first < 0:
        raise ValueError(f"expected a first frame >= 0, got {first}; names of pictures carry it")
    rate = usual_rate(times_s)
    steps = np.arange(len(times_s))
    elapsed = times_s - times_s[0]
    if len(times_s) > 1 and elapsed[-1] > 0:
        mean = (len(times_s) - 1) / elapsed[-1]
        if abs(mean / rate - 1) < 0.02:  # time stamps are rounded; over the whole clip that hardly shows
            rate = float(mean)
    nearest = float(_STANDARD[np.argmin(np.abs(_STANDARD / rate - 1))])
    # Stamps in whole milliseconds move the rate of a clip by so much at most.
    rounding = 1e-3 / max(float(elapsed[-1]), 1e-3) if len(times_s) > 1 else 1.0
    if abs(nearest / rate - 1) <= max(min(rounding, 2e-3), 2e-4):
        rate = nearest
    regular = bool(np.abs(elapsed * rate - steps).max() <= 0.5)
    if not regular:
        log.warning(
            "the frames do not follow at one rate; the scene shows one after the other at %.6g frames per second",
            rate,
        )
    return TimeLine(first, rate, len(times_s), regular)


@dataclass(frozen=True)
class FilmBack:
    """Lens and film back of every frame, in millimetres, the longer side of the film ``FILM_BACK_MM``.

    Attributes:
        focal, width, height: of lens and film.
        shift_x, shift_y: centre of the film from the axis of the lens, to the right and up; zero for a principal point
            in the middle.
    """

    focal: Float[np.ndarray, " T"]
    width: Float[np.ndarray, " T"]
    height: Float[np.ndarray, " T"]
    shift_x: Float[np.ndarray, " T"]
    shift_y: Float[np.ndarray, " T"]

    @property
    def is_centred(self) -> bool:
        """The principal point is in the middle, within a hundredth of a percent of the film."""
        return bool(max(np.abs(self.shift_x).max(), np.abs(self.shift_y).max()) < 1e-4 * FILM_BACK_MM)

    @property
    def fov_y(self) -> Float[np.ndarray, " T"]:
        """Full vertical field of view of a centred film, radians."""
        return 2 * np.arctan(self.height / (2 * self.focal))


def film_back(intrinsics: Float[np.ndarray, "T 3 3"], size: tuple[int, int]) -> FilmBack:
    """Film backs of pinhole cameras.

    Args:
        intrinsics: pixels of pictures of ``size``, pixel centres at +0.5.
        size: (height, width).
    """
    height, width = size
    fx, fy, cx, cy = (intrinsics[:, i, j].astype(np.float64) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    focal = FILM_BACK_MM * (fx / width if width >= height else fy / height)
    film_width, film_height = focal * width / fx, focal * height / fy
    return FilmBack(
        focal=focal,
        width=film_width,
        height=film_height,
        shift_x=film_width * (0.5 - cx / width),
        shift_y=film_height * (cy / height - 0.5),
    )


def pixel_aspect(intrinsics: Float[np.ndarray, "T 3 3"]) -> float:
    """Width by height of a pixel; 1 for maps in the shape of the source."""
    return float(np.median(intrinsics[:, 1, 1] / intrinsics[:, 0, 0]))


def clipping_range(reconstruction: Reconstruction, frames: Sequence[int]) -> tuple[float, float]:
    """(near, far) that hold everything with depth: half of the least depth, and twice the greatest."""
    near, far = np.inf, 0.0
    for frame in frames:
        depth = np.asarray(reconstruction.depth[frame], np.float32)
        depth = depth[np.isfinite(depth) & (depth > 0)]
        if depth.size:
            near, far = min(near, float(depth.min())), max(far, float(depth.max()))
    if far == 0:
        return 0.1, 1000.0
    return max(near / 2, far * 1e-6), far * 2


def plate_name(scene: Path) -> str:
    """Name of the folder of pictures beside a scene; the suffix in it keeps those of two formats apart."""
    return f"{scene.stem}_{scene.suffix.lower().removeprefix('.')}_plate"


def save_plate(
    folder: Path, reconstruction: Reconstruction, frames: Sequence[int], line: TimeLine
) -> list[str]:
    """Pictures ``frame_0001.png`` and so on, by their numbers on the time line; names of none without pictures."""
    if reconstruction.rgb is None:
        log.warning("no plate: the source video of this reconstruction cannot be read")
        return []
    names = [f"frame_{number:04d}.png" for number in line.numbers]
    for name, frame in zip(names, frames, strict=True):
        save_image(folder / name, np.asarray(reconstruction.rgb[frame], np.float32))
    return names


def time_notes(
    reconstruction: Reconstruction, frames: Sequence[int], line: TimeLine
) -> list[dict[str, float]]:
    """For every number on the time line: frame of the result, frame and time of the source."""
    return [
        {"number": number, **frame_notes(reconstruction, frame)}
        for number, frame in zip(line.numbers, frames, strict=True)
    ]
