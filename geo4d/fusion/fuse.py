"""Predictions to a reconstruction in memory: alignment, then dense maps of all frames."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geo4d.fusion.align import align
from geo4d.fusion.alignment import AlignConfig, Alignment, CameraEvidence
from geo4d.fusion.dense import iter_dense
from geo4d.fusion.steady import iter_steady
from geo4d.geometry.poses import first_camera_world
from geo4d.types import Prediction, Reconstruction


def fuse(
    predictions: Sequence[Prediction],
    *,
    num_frames: int,
    config: AlignConfig | None = None,
    size: tuple[int, int] | None = None,
    times_s: Float[np.ndarray, " T"] | None = None,
    known_intrinsics: Float[Tensor, "T 3 3"] | None = None,
    known_c2w: Float[Tensor, "T 4 4"] | None = None,
    motion: CameraEvidence | None = None,
    with_moving: bool = True,
    device: torch.device | str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Reconstruction:
    """Align windows and make all maps, in memory (for videos of any length: ``align`` and ``iter_dense``).

    Args:
        times_s: of the processed sequence; None takes those of the predictions, and frame numbers where no window
            tells.
        with_moving: also give a dynamic probability.
        predictions, num_frames, config, size, known_intrinsics, known_c2w, motion, device, progress: as in ``align``.
    Raises:
        ValueError: as ``align``.
    """
    alignment = align(
        predictions,
        num_frames=num_frames,
        config=config,
        size=size,
        known_intrinsics=known_intrinsics,
        known_c2w=known_c2w,
        motion=motion,
        device=device,
        progress=progress,
    )
    return dense_reconstruction(
        alignment,
        predictions,
        times_s=times_s,
        with_moving=with_moving,
        device=device,
        progress=progress,
        given_world=known_c2w is not None,
    )


def dense_reconstruction(
    alignment: Alignment,
    predictions: Sequence[Prediction],
    *,
    times_s: Float[np.ndarray, " T"] | None = None,
    with_moving: bool = True,
    device: torch.device | str | None = None,
    progress: Callable[[str, float], None] | None = None,
    provenance: dict[str, Any] | None = None,
    given_world: bool = False,
) -> Reconstruction:
    """All maps of an alignment, in memory.

    Args:
        given_world: keep the world of the alignment, that of known cameras; else it is each scene's first camera.
    """
    num_frames, (height, width) = alignment.num_frames, alignment.size
    depth = np.empty((num_frames, height, width), np.float32)
    confidence = np.empty_like(depth)
    dynamic = np.empty_like(depth) if with_moving and alignment.c2w is not None else None
    dense = iter_dense(alignment, predictions, with_moving=with_moving, device=device)
    for maps in iter_steady(alignment, dense):
        frame = maps.frame_index
        depth[frame] = maps.depth.cpu().numpy()
        confidence[frame] = maps.confidence.cpu().numpy()
        if dynamic is not None and maps.dynamic is not None:
            dynamic[frame] = maps.dynamic.cpu().numpy()
        if progress is not None:
            progress("dense depth", (frame + 1) / num_frames)
    c2w = alignment.c2w
    if c2w is not None and not given_world:
        c2w = first_camera_world(c2w, alignment.scene)
    return Reconstruction(
        depth=depth,
        confidence=confidence,
        intrinsics=alignment.intrinsics.numpy(),
        times_s=np.arange(num_frames, dtype=np.float64) if times_s is None else times_s,
        source_frames=np.arange(num_frames),
        scale_kind=alignment.scale_kind,
        c2w=None if c2w is None else c2w.numpy(),
        dynamic=dynamic,
        reliable=alignment.reliable.numpy(),
        scene=alignment.scene.numpy(),
        provenance=provenance or {},
        diagnostics=alignment.diagnostics,
    )
