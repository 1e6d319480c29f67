"""Dataset x protocol x sequences, as data: the papers' tables and the project's own two benchmarks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.datasets.base import Sequence
from geo4d.datasets.catalogue import find_sequences, load_reader
from geo4d.datasets.views import centre_crop, select
from geo4d.errors import InputError
from geo4d.evaluation.protocols import PROTOCOLS, PoseProtocol, Protocol, geo4d, geometrycrafter

DEPTH_COLUMNS = ("abs_rel", "delta_125", "coverage")
POSE_COLUMNS = ("ate", "rpe_trans", "rpe_rot_deg", "pose_coverage")
CAMERA_COLUMNS = ("fx_rel", "fy_rel", "cx_rel", "cy_rel", "depth_over_cameras")
POINT_COLUMNS = ("point_rel", "point_delta", "point_coverage", *DEPTH_COLUMNS)


@dataclass(frozen=True)
class Benchmark:
    """One column group of a paper's table.

    Attributes:
        name: as on the command line.
        title: one line for lists.
        reader: name of the dataset's reader.
        protocol: how it is scored.
        columns: metrics of the table; coverage stands beside the errors that it belongs to.
        sequences: names to use, in order; None: all.
        max_sequences: the first so many; None: all.
        frames: which frames of each sequence, before anything else.
        prepare: (path, name) -> the sequence as the paper's own preparation picks its frames, where a slice of what the
            reader gives is not the same; None: what the reader loads.
        model_options: family of models -> options of its pipeline that the paper's evaluation sets, such as the size of
            the network's frames. Options of the user win.
        crop: (height, width) of the centre crop, or None.
        border: pixels cut off on each side, or 0.
        published: key of the published rows in ``published.py``, or None.
        mean_by_pixels: the paper weighs sequences by their valid pixels in depth metrics.
    """

    name: str
    title: str
    reader: str
    protocol: Protocol
    columns: tuple[str, ...]
    sequences: tuple[str, ...] | None = None
    max_sequences: int | None = None
    frames: slice | None = None
    prepare: Callable[[Path, str], Sequence] | None = None
    model_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    crop: tuple[int, int] | None = None
    border: int = 0
    published: str | None = None
    mean_by_pixels: bool = False

    def find(self, root: Path) -> dict[str, Path]:
        """Sequences of the benchmark under ``root``.

        Raises:
            InputError: some are missing; the message names them and where to get the dataset.
        """
        reader = load_reader(self.reader)
        found = find_sequences(reader, root)
        if self.sequences is not None:
            absent = [name for name in self.sequences if name not in found]
            if absent:
                raise InputError(
                    f"expected {len(self.sequences)} sequences of {reader.title} under {root}, "
                    f"{len(absent)} are missing: {', '.join(absent)}. Get them from {reader.url}, or name those to "
                    "use with --sequences"
                )
            found = {name: found[name] for name in self.sequences}
        return dict(list(found.items())[: self.max_sequences])

    def options_for(self, model: str) -> dict[str, Any]:
        """Options of the pipeline that the paper's evaluation sets for this model, by the first part of its name."""
        return dict(self.model_options.get(model.split("-")[0], {}))

    def load(self, path: Path, name: str) -> Sequence:
        """One sequence as the benchmark uses it: frames chosen, cropped."""
        sequence = (self.prepare or load_reader(self.reader).load)(path, name)
        if self.frames is not None:
            sequence = select(sequence, self.frames)
        if self.border:
            height, width = sequence.size
            sequence = centre_crop(
                _frames_to_maps(sequence), (height - 2 * self.border, width - 2 * self.border)
            )
        if self.crop is not None:
            height, width = sequence.size
            sequence = centre_crop(sequence, (min(self.crop[0], height), min(self.crop[1], width)))
        return sequence


def _frames_to_maps(sequence: Sequence) -> Sequence:
    """Colour resized to the size of the depth maps (ScanNet), lazily."""
    from dataclasses import replace

    import cv2

    from geo4d.types import LazyFrames

    rgb = sequence.rgb
    if rgb is None or tuple(rgb.shape[1:3]) == sequence.size:
        return sequence
    shape = (rgb.shape[0], *sequence.size, 3)

    def compute(t: int) -> np.ndarray:
        return np.clip(
            cv2.resize(np.asarray(rgb[t]), sequence.size[::-1], interpolation=cv2.INTER_CUBIC), 0, 1
        )

    return replace(sequence, rgb=LazyFrames(shape, np.dtype(np.float32), compute))


def _pose_only(protocol: Protocol) -> Protocol:
    return Protocol(
        name=f"{protocol.name}-poses",
        source=protocol.source,
        depth=None,
        poses=PoseProtocol(),
        consistency=False,
    )


def _build() -> dict[str, Benchmark]:
    from geo4d.datasets.readers import bonn, ddad, gmu_kitchens, kitti, monkaa, scannet, sintel, tum

    def gc(max_depth: float, weighted: bool) -> Protocol:
        return geometrycrafter(max_depth=max_depth, weighted=weighted)

    says_24 = {
        "geo4d": {"fps": 24.0}
    }  # the authors' evaluation tells the network so, whatever the data set's rate is
    rows = [
        Benchmark("sintel", "Sintel, final pass, video depth as Geo4D (23 sequences)", "sintel", geo4d(),
                  DEPTH_COLUMNS, model_options=says_24, published="geo4d/sintel-depth", mean_by_pixels=True),
        Benchmark("sintel-pose", "Sintel, final pass, camera poses as Geo4D (14 sequences)", "sintel",
                  _pose_only(geo4d()), POSE_COLUMNS, sequences=sintel.POSE_SEQUENCES, model_options=says_24,
                  published="geo4d/sintel-pose"),
        Benchmark("bonn", "Bonn, 5 sequences, frames 30 to 139, video depth as Geo4D", "bonn", geo4d(),
                  DEPTH_COLUMNS, sequences=bonn.VIDEO_SEQUENCES, prepare=bonn.load_video, model_options=says_24,
                  published="geo4d/bonn-depth", mean_by_pixels=True),
        Benchmark("kitti", "KITTI depth, first 110 frames of 13 drives, video depth as Geo4D", "kitti",
                  geo4d(max_depth=None), DEPTH_COLUMNS, frames=kitti.VIDEO_FRAMES, model_options=says_24,
                  published="geo4d/kitti-depth", mean_by_pixels=True),
        Benchmark("tum-dynamics", "TUM dynamics, 8 sequences, 90 frames at stride 3, camera poses as Geo4D", "tum",
                  _pose_only(geo4d()), POSE_COLUMNS, sequences=tum.DYNAMIC_SEQUENCES, prepare=tum.load_dynamic,
                  model_options=says_24, published="geo4d/tum-dynamics-pose"),
        Benchmark("scannet-pose", "ScanNet, 90 frames at stride 3, camera poses as Geo4D's scripts", "scannet",
                  _pose_only(geo4d()), POSE_COLUMNS, max_sequences=scannet.NUM_SCENES, frames=scannet.VIDEO_FRAMES,
                  model_options=says_24),
        Benchmark("kitti-odometry", "KITTI odometry, camera poses", "kitti-odometry", _pose_only(geo4d()),
                  POSE_COLUMNS),
        Benchmark("gmu-kitchens", "GMU Kitchens, 110 frames at stride 2, as GeometryCrafter", "gmu-kitchens",
                  gc(10, False), POINT_COLUMNS, frames=gmu_kitchens.VIDEO_FRAMES, published="geometrycrafter/gmu"),
        Benchmark("monkaa", "Monkaa, first 110 frames, as GeometryCrafter", "monkaa", gc(100, True), POINT_COLUMNS,
                  sequences=tuple(monkaa.MAX_DEPTH), frames=monkaa.VIDEO_FRAMES, published="geometrycrafter/monkaa"),
        Benchmark("sintel-points", "Sintel, clean pass, 872 x 436, as GeometryCrafter", "sintel-clean", gc(70, True),
                  POINT_COLUMNS, crop=(436, 872), published="geometrycrafter/sintel"),
        Benchmark("scannet", "ScanNet, 100 scenes, 90 frames at stride 3, 624 x 464, as GeometryCrafter", "scannet",
                  gc(10, False), POINT_COLUMNS, max_sequences=scannet.NUM_SCENES, frames=scannet.VIDEO_FRAMES,
                  border=scannet.BORDER, model_options={"geometrycrafter": {"height": 512, "width": 640}},
                  published="geometrycrafter/scannet"),
        Benchmark("ddad", "DDAD validation, 1920 x 1152, as GeometryCrafter", "ddad", gc(250, False), POINT_COLUMNS,
                  crop=ddad.CROP, model_options={"geometrycrafter": {"max_side": 640}},
                  published="geometrycrafter/ddad"),
        Benchmark("kitti-points", "KITTI depth, 110 frames, 736 x 368, as GeometryCrafter", "kitti", gc(80, True),
                  POINT_COLUMNS, frames=kitti.VIDEO_FRAMES, crop=(368, 736), published="geometrycrafter/kitti"),
        Benchmark("diode", "DIODE validation images, as GeometryCrafter (no released script: cap and mask are ours)",
                  "diode", gc(300, False), POINT_COLUMNS, published="geometrycrafter/diode"),
    ]  # fmt: skip
    return {row.name: row for row in rows}


BENCHMARKS: dict[str, Benchmark] = _build()
"""The papers' benchmarks. ``synthetic`` and ``samples`` are in ``run.py``: they bring their own sequences."""

SAMPLES: dict[str, tuple[str, str]] = {
    "tartanair-office-sample": (
        "tartanair",
        "TartanAir (CC BY 4.0); github.com/Inoriros/RGBD_map_stitching@3eeb3c9505",
    ),
    "hololens-dvmvs-sample": ("hololens", "github.com/ardaduz/deep-video-mvs@fa14288f14 (MIT)"),
    "iclnuim-livingroom1-sample": (
        "iclnuim",
        "ICL-NUIM, Redwood augmentation; github.com/isl-org/open3d_downloads@55705eab54",
    ),
    "tum-fr1-rpy-sample": (
        "tum",
        "TUM RGB-D fr1/rpy (CC BY 4.0); github.com/jmstark/gpu_odometry@aec7c85367",
    ),
    "kitti-odometry-sample": (
        "kitti-odometry",
        "KITTI (CC BY-NC-SA 3.0); github.com/niconielsen32/VisualSLAM@13122eaadb",
    ),
    "kitti-depth-sample": ("kitti", "KITTI (CC BY-NC-SA 3.0); github.com/YvanYin/Metric3D@eb5b6fac0d"),
    "pavilion-chair-sample": (
        "pavilion",
        "github.com/rfabbri/pavilion-multiview-3d-dataset@8257102a9a (CC BY)",
    ),
    "euroc-v101-format-sample": ("euroc", "EuRoC V1_01; github.com/MIT-SPARK/Kimera-VIO@ce8c59b7b2"),
    "dgp-ddad-format-sample": ("ddad", "github.com/TRI-ML/dgp@1e06dc9349 (MIT)"),
}
"""Small public sequences with ground truth: folder name -> (reader, public source)."""

SAMPLES_PROTOCOL = PROTOCOLS["median"]
SYNTHETIC_PROTOCOL = PROTOCOLS["affine-disparity"]
