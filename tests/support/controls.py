"""A model that sees evidence and windows of a slab, for the rows beside a model."""

from types import SimpleNamespace

import torch

from geo4d.geometry.cameras import camera_rays, centred_intrinsics
from geo4d.models.base import PredictorInfo
from geo4d.types import EvidenceMaps, Prediction, Window

SIZE = (32, 48)


ANSWER = Prediction(
    frame_indices=torch.arange(4),
    times_s=torch.arange(4).double(),
    window_index=0,
    disparity=torch.ones(4, *SIZE),
)


def stub(evidence="motion"):
    return SimpleNamespace(
        info=PredictorInfo("stub", "", "", "ab" * 32, 4, 2, evidence=evidence),
        size_for=lambda size: SIZE,
        memory_bytes=lambda size: 0,
        prepare=lambda windows: {},
        predict=lambda window, **_: ANSWER,
    )


def window(seed=0, count=4, start=0):
    generator = torch.Generator().manual_seed(seed)
    return Window(
        rgb=torch.rand(count, *SIZE, 3, generator=generator),
        frame_indices=torch.arange(start, start + count),
        times_s=torch.arange(count).double(),
        index=0,
        fps=10.0,
    )


def slab():
    """A wall at depth 4 with a box at depth 2 on the left, seen by sliding past; evidence on a band of columns."""
    depth = torch.full((4, *SIZE), 4.0)
    depth[:, :, :16] = 2.0
    intrinsics = centred_intrinsics(torch.tensor(40.0), SIZE).repeat(4, 1, 1)
    c2w = torch.eye(4).repeat(4, 1, 1)
    c2w[:, 0, 3] = 0.3 * torch.arange(4)
    mask = torch.zeros(4, *SIZE, dtype=torch.bool)
    mask[:, :, 8:40] = True
    return EvidenceMaps(
        points=camera_rays(intrinsics, SIZE) * depth[..., None],
        mask=mask,
        confidence=mask.float(),
        intrinsics=intrinsics,
        c2w=c2w,
        camera_confidence=torch.ones(4),
    )
