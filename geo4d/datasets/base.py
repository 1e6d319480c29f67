"""A ``Sequence`` is one video with ground truth, read lazily; a ``Reader`` knows one dataset's folders.

Conventions of a sequence are the package's: OpenCV axes, ``c2w``, z-depth with NaN where unknown and +inf in the sky,
intrinsics with pixel centres at +0.5. A reader converts once, when it loads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geo4d.errors import InputError
from geo4d.geometry.distortion import Distortion
from geo4d.types import FrameArray, ScaleKind


@dataclass(frozen=True, eq=False)
class Tracks:
    """Surface points followed over all frames.

    Attributes:
        pixels: [T, N, 2] positions (x, y) in pixels of the maps; anything where not visible.
        depth: [T, N] z-depth of the points.
        visible: [T, N] seen in that frame.
    """

    pixels: np.ndarray
    depth: np.ndarray
    visible: np.ndarray


@dataclass(frozen=True, eq=False)
class Sequence:
    """Frames and ground truth of one video. Maps are read when sliced.

    Attributes:
        name: of the sequence in its dataset.
        dataset: name of the reader.
        times_s: [T] seconds, increasing.
        size: (height, width) of the ground-truth maps (and of ``intrinsics``).
        rgb: [T, h, w, 3] float32 in [0, 1], at the size of the files, or None.
        depth: [T, H, W] float32 z-depth, NaN where unknown, +inf in the sky, or None.
        intrinsics: [T, 3, 3] in pixels of ``size``, or None.
        c2w: [T, 4, 4]; NaN for a frame without ground truth; or None.
        dynamic: [T, H, W] bool, True on moving things, or None.
        tracks: points followed over the frames, moving ones included, or None.
        scale_kind: ``metric`` (metres) or ``scale`` (one unknown factor for depth and translations).
        depth_source: how depth was measured: ``rendered``, ``laser scanner``, ..; ``as given`` where nobody says.
        pose_source: how poses were measured, likewise.
        files: every file the sequence reads, for provenance.
        notes: what was left out or repaired while reading.
    """

    name: str
    dataset: str
    times_s: np.ndarray
    size: tuple[int, int]
    rgb: FrameArray | None = None
    depth: FrameArray | None = None
    intrinsics: np.ndarray | None = None
    c2w: np.ndarray | None = None
    dynamic: FrameArray | None = None
    tracks: Tracks | None = None
    scale_kind: ScaleKind = "metric"
    depth_source: str = "unknown"
    pose_source: str = "unknown"
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num_frames == 0:
            raise InputError(f"expected frames in {self.dataset} sequence {self.name}, found none")
        for field in ("rgb", "depth", "intrinsics", "c2w", "dynamic"):
            value = getattr(self, field)
            if value is not None and value.shape[0] != self.num_frames:
                raise InputError(
                    f"expected {self.num_frames} frames of {field} in {self.dataset} sequence {self.name}, "
                    f"got {value.shape[0]}"
                )
        for field in ("depth", "dynamic"):
            value = getattr(self, field)
            if value is not None and tuple(value.shape[1:3]) != self.size:
                raise InputError(
                    f"expected {field} maps of size {self.size} in {self.name}, got {tuple(value.shape[1:3])}"
                )
        backward = np.flatnonzero(np.diff(self.times_s) <= 0)
        if backward.size:
            raise InputError(
                f"expected increasing times in {self.dataset} sequence {self.name}, but frame {backward[0] + 1} "
                f"({self.times_s[backward[0] + 1]:.6f} s) does not follow frame {backward[0]} "
                f"({self.times_s[backward[0]]:.6f} s)"
            )

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.times_s)

    @property
    def has_depth(self) -> bool:
        """Whether there is reference depth."""
        return self.depth is not None

    @property
    def has_poses(self) -> bool:
        """Whether there are reference cameras."""
        return self.c2w is not None


@dataclass(frozen=True, eq=False)
class Recording:
    """What a camera recorded, without ground truth.

    Attributes:
        title: of the data set.
        files: the pictures in order; those that are not readable are for their reader to refuse.
        times_s: [files] seconds, strictly increasing.
        intrinsics: fx, fy, cx, cy in pixels of ``size``, pixel centres at +0.5; None where the folder does not tell.
        size: (height, width) that the intrinsics belong to; None where the folder does not tell.
        camera: what is to be known of the camera: where the numbers come from, distortion, why there are none.
        notes: statements: which pictures were taken, what is missing.
        distortion: of the pictures, with ``intrinsics``; None where there is none, or none is stated.
    """

    title: str
    files: tuple[Path, ...]
    times_s: np.ndarray
    intrinsics: tuple[float, float, float, float] | None
    size: tuple[int, int] | None
    camera: str
    notes: tuple[str, ...] = ()
    distortion: Distortion | None = None

    def intrinsics_for(self, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
        """The intrinsics if they are those of pictures of that (height, width)."""
        if self.intrinsics is None or (self.size is not None and self.size != size):
            return None
        return self.intrinsics

    def camera_note(self, size: tuple[int, int], known: bool) -> str:
        """A statement of which camera is used.

        Args:
            size: (height, width) of the pictures.
            known: the user gave a camera, which wins.
        """
        if known:
            return f"the camera is the one given, not that of {self.title}"
        if self.intrinsics is None:
            return f"the camera is estimated: {self.camera}"
        if self.intrinsics_for(size) is None:
            height, width = self.size or size
            return (
                f"the camera is estimated: that of {self.title} is for {width}x{height}, the pictures are "
                f"{size[1]}x{size[0]}"
            )
        fx, fy, cx, cy = self.intrinsics
        return f"camera of {self.title}: fx {fx:.6g}, fy {fy:.6g}, cx {cx:.6g}, cy {cy:.6g} px; {self.camera}"


@dataclass(frozen=True)
class Reader:
    """How one dataset lies on disk.

    Attributes:
        name: key in ``READERS``.
        title: full name.
        url: where to get it.
        layout: the files that must be there, for error messages and the documentation.
        find: root (of the dataset, or of one sequence) -> sequence name -> folder or file to load; empty where the
            layout is another one.
        load: (path from ``find``, name) -> sequence.
        record: (folder of one sequence, a folder in it that the pictures must lie in) -> what a camera recorded, or None
            where the layout is another one; None for readers that give no footage of one camera.
        still: the pictures of a sequence are no video (one picture, or views of one place); training uses them as images.
    """

    name: str
    title: str
    url: str
    layout: str
    find: Callable[[Path], dict[str, Path]]
    load: Callable[[Path, str], Sequence]
    record: Callable[[Path, Path], Recording | None] | None = None
    still: bool = False


def missing(reader: Reader, path: Path, what: str) -> InputError:
    """The error for a wrong or partial folder."""
    return InputError(
        f"expected {reader.title} under {path}: {what}. Layout: {reader.layout} Get it from {reader.url}"
    )
