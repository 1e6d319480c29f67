"""Windows to one world: alignment of the predictions of overlapping windows, and dense maps from it."""

from geo4d.fusion.align import align
from geo4d.fusion.alignment import AlignConfig, Alignment, CameraEvidence, find_bad_windows
from geo4d.fusion.dense import iter_dense
from geo4d.fusion.fuse import dense_reconstruction, fuse
from geo4d.fusion.upsample import upsample_depth

__all__ = [
    "AlignConfig",
    "Alignment",
    "CameraEvidence",
    "align",
    "dense_reconstruction",
    "find_bad_windows",
    "fuse",
    "iter_dense",
    "upsample_depth",
]
