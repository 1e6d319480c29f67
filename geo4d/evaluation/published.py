"""Published results as data: what the papers report, with the place it stands. Shares are fractions of 1 here.

Values are those of the papers under the papers' protocols; a row of another protocol is not comparable. ``rel`` and
``delta`` that the papers print in percent are divided by 100.
"""

from dataclasses import dataclass

GEO4D = "Geo4D, arXiv:2504.07961"
GEOMETRYCRAFTER = "GeometryCrafter, arXiv:2504.01016"


@dataclass(frozen=True)
class PublishedRow:
    """Attributes:
    method: as the paper names it.
    values: metric name -> value, in the units of this package.
    source: paper and table.
    note: what the paper says about the row.
    """

    method: str
    values: dict[str, float]
    source: str
    note: str = ""


def _rows(
    source: str,
    columns: tuple[str, ...],
    table: dict[str, tuple[float, ...]],
    notes: dict[str, str] | None = None,
) -> tuple[PublishedRow, ...]:
    notes = notes or {}
    return tuple(
        PublishedRow(method, dict(zip(columns, values, strict=True)), source, notes.get(method, ""))
        for method, values in table.items()
    )


_DEPTH = ("abs_rel", "delta_125")
_POSE = ("ate", "rpe_trans", "rpe_rot_deg")
_BOTH = (*_DEPTH, *_POSE)

_VIDEO_DEPTH = {  # Sintel, Bonn, KITTI: abs_rel, delta_125
    "Marigold": (0.532, 0.515, 0.091, 0.931, 0.149, 0.796),
    "Depth-Anything-V2": (0.367, 0.554, 0.106, 0.921, 0.140, 0.804),
    "NVDS": (0.408, 0.483, 0.167, 0.766, 0.253, 0.588),
    "ChronoDepth": (0.687, 0.486, 0.100, 0.911, 0.167, 0.759),
    "DepthCrafter": (0.270, 0.697, 0.071, 0.972, 0.104, 0.896),
    "MonST3R": (0.335, 0.585, 0.063, 0.964, 0.104, 0.895),
    "Geo4D": (0.205, 0.735, 0.059, 0.972, 0.086, 0.937),
}
_CAMERA = {  # Sintel, TUM-dynamics: ate, rpe_trans, rpe_rot_deg
    "Robust-CVD": (0.360, 0.154, 3.443, 0.153, 0.026, 3.528),
    "CasualSAM": (0.141, 0.035, 0.615, 0.071, 0.010, 1.712),
    "MonST3R": (0.108, 0.042, 0.732, 0.063, 0.009, 1.217),
    "Geo4D": (0.185, 0.063, 0.547, 0.073, 0.020, 0.635),
}
_GC_DATASETS = ("gmu", "monkaa", "sintel", "scannet", "ddad", "kitti", "diode")
_GC_POINTS = {  # per data set: Rel^p, delta^p, per cent
    "DUSt3R": (22.2, 68.2, 37.0, 45.1, 43.9, 35.6, 13.3, 87.7, 37.8, 37.3, 17.2, 87.8, 20.0, 85.3),
    "MonST3R": (24.1, 64.4, 40.2, 32.6, 40.0, 34.1, 13.6, 87.2, 40.7, 25.9, 24.0, 58.1, 22.2, 79.4),
    "MonST3R (optimised)": (11.4, 91.5, 36.2, 42.6, 38.6, 35.9, 6.13, 97.6, 40.0, 29.3, 25.0, 58.7, 22.2, 79.4),
    "UniDepth": (9.96, 94.1, 23.0, 65.6, 30.9, 50.6, 6.54, 98.4, 23.0, 64.9, 4.24, 99.3, 16.1, 88.0),
    "DepthPro": (14.0, 86.5, 29.5, 50.4, 45.0, 36.3, 10.5, 93.6, 39.8, 43.1, 12.8, 93.6, 18.6, 87.1),
    "MoGe": (21.3, 69.1, 28.0, 58.1, 31.2, 52.0, 13.5, 88.0, 16.0, 85.5, 8.51, 95.7, 13.5, 93.5),
    "GeometryCrafter (deterministic)": (
        8.88, 94.3, 18.8, 79.7, 25.9, 62.8, 8.92, 96.4, 15.6, 89.0, 6.73, 98.4, 13.0, 92.8,
    ),
    "GeometryCrafter (diffusion)": (
        8.52, 94.3, 20.5, 75.5, 25.6, 64.9, 9.16, 96.0, 15.0, 90.6, 6.34, 98.7, 13.1, 92.7,
    ),
}  # fmt: skip
_GC_DEPTH = {  # per data set: Rel^d, delta^d, per cent
    "Depth-Anything": (18.0, 68.2, 24.1, 62.1, 37.2, 59.8, 11.3, 87.8, 13.4, 85.1, 8.70, 92.4, 6.94, 94.6),
    "Depth-Anything-V2": (19.3, 65.4, 24.0, 61.5, 40.6, 55.0, 12.3, 85.1, 13.9, 84.7, 11.1, 87.0, 6.94, 95.0),
    "ChronoDepth": (20.1, 65.2, 35.1, 52.6, 45.1, 57.9, 14.3, 81.4, 34.6, 45.8, 15.0, 79.8, 12.2, 90.6),
    "DepthCrafter": (13.8, 80.6, 23.4, 73.8, 30.5, 67.0, 11.3, 87.3, 15.6, 80.7, 9.96, 89.6, 12.6, 86.2),
    "DepthAnyVideo": (10.8, 89.4, 19.0, 72.3, 35.7, 67.3, 8.83, 92.7, 12.3, 85.4, 7.13, 95.3, 7.47, 93.7),
    "GeometryCrafter (deterministic)": (
        8.28, 93.2, 12.0, 83.5, 16.3, 74.3, 7.27, 96.1, 13.4, 86.2, 5.60, 97.7, 7.00, 96.2,
    ),
    "GeometryCrafter (diffusion)": (
        8.03, 94.0, 13.0, 80.5, 16.9, 73.2, 7.57, 95.9, 12.7, 87.5, 5.25, 98.3, 7.03, 96.1,
    ),
}  # fmt: skip
_GC_NOTES = {
    "DUSt3R": "two identical frames; trained on ScanNet++",
    "MonST3R": "two identical frames; trained on ScanNet",
    "MonST3R (optimised)": "post-optimised with external flow; trained on ScanNet",
    "UniDepth": "trained on ScanNet",
    "DepthPro": "trained on ScanNet++",
}


def _geometrycrafter(index: int) -> tuple[PublishedRow, ...]:
    """Point rows with the affine-depth numbers of the same method where the paper has them, then depth-only rows."""

    def pair(values: tuple[float, ...]) -> tuple[float, float]:
        return values[2 * index] / 100, values[2 * index + 1] / 100

    rows = []
    for method in (*_GC_DEPTH, *(name for name in _GC_POINTS if name not in _GC_DEPTH)):
        values: dict[str, float] = {}
        if method in _GC_POINTS:
            values |= dict(zip(("point_rel", "point_delta"), pair(_GC_POINTS[method]), strict=True))
        if method in _GC_DEPTH:
            values |= dict(zip(_DEPTH, pair(_GC_DEPTH[method]), strict=True))
        tables = " and ".join(
            table
            for table, there in (("Table 1", method in _GC_POINTS), ("Table 2", method in _GC_DEPTH))
            if there
        )
        rows.append(PublishedRow(method, values, f"{GEOMETRYCRAFTER}, {tables}", _GC_NOTES.get(method, "")))
    return tuple(rows)


PUBLISHED: dict[str, tuple[PublishedRow, ...]] = {
    "geo4d/sintel-depth": _rows(f"{GEO4D}, Table 1", _DEPTH, {k: v[0:2] for k, v in _VIDEO_DEPTH.items()}),
    "geo4d/bonn-depth": _rows(f"{GEO4D}, Table 1", _DEPTH, {k: v[2:4] for k, v in _VIDEO_DEPTH.items()}),
    "geo4d/kitti-depth": _rows(f"{GEO4D}, Table 1", _DEPTH, {k: v[4:6] for k, v in _VIDEO_DEPTH.items()}),
    "geo4d/sintel-pose": _rows(f"{GEO4D}, Table 2", _POSE, {k: v[0:3] for k, v in _CAMERA.items()}),
    "geo4d/tum-dynamics-pose": _rows(f"{GEO4D}, Table 2", _POSE, {k: v[3:6] for k, v in _CAMERA.items()}),
    **{f"geometrycrafter/{name}": _geometrycrafter(index) for index, name in enumerate(_GC_DATASETS)},
    "ablation/modalities": (
        PublishedRow("points (trained on points)",
                     dict(zip(_BOTH, (0.232, 0.713, 0.335, 0.076, 0.731), strict=True)), f"{GEO4D}, Table 3"),
        PublishedRow("points", dict(zip(_BOTH, (0.223, 0.725, 0.237, 0.070, 0.566), strict=True)), f"{GEO4D}, Table 3"),
        PublishedRow("disparity", {"abs_rel": 0.211, "delta_125": 0.734}, f"{GEO4D}, Table 3"),
        PublishedRow("rays", {"ate": 0.268, "rpe_trans": 0.192, "rpe_rot_deg": 1.476}, f"{GEO4D}, Table 3"),
        PublishedRow("all", dict(zip(_BOTH, (0.205, 0.735, 0.185, 0.063, 0.547), strict=True)), f"{GEO4D}, Table 3"),
    ),
    # The paper heads this column FPS, but says 2.41 s per frame of MonST3R are 1.27 times its 1.89: seconds per frame.
    "ablation/stride": _rows(
        f"{GEO4D}, Table 4",
        ("seconds_per_frame", *_BOTH),
        {
            "stride 15": (0.92, 0.213, 0.724, 0.210, 0.092, 0.574),
            "stride 8": (1.24, 0.212, 0.728, 0.222, 0.074, 0.524),
            "stride 4": (1.89, 0.205, 0.735, 0.185, 0.063, 0.547),
            "stride 2": (3.26, 0.204, 0.729, 0.181, 0.058, 0.518),
        },
    ),
    "ablation/steps": _rows(
        f"{GEO4D}, supplement, Table 6",
        _BOTH,
        {
            "1 step": (0.221, 0.707, 0.234, 0.072, 0.753),
            "5 steps": (0.205, 0.735, 0.185, 0.063, 0.547),
            "10 steps": (0.207, 0.732, 0.212, 0.071, 0.508),
            "25 steps": (0.220, 0.722, 0.211, 0.074, 0.564),
        },
    ),
    "ablation/vae": _rows(
        f"{GEO4D}, supplement, Table 7",
        _BOTH,
        {
            "image decoder for points": (0.212, 0.721, 0.192, 0.061, 0.577),
            "fine-tuned point decoder": (0.205, 0.735, 0.185, 0.063, 0.547),
        },
    ),
}  # fmt: skip
"""Benchmark or ablation -> rows. The ablations are on Sintel."""
