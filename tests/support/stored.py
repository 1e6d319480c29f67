"""A small result on disk, and runs that write one."""

import numpy as np
import torch

from geo4d.results.workspace import Workspace
from geo4d.results.writer import StoreWriter
from geo4d.types import FrameMaps

SETTINGS = {"seed": 0, "model": {"name": "truth", "weights": "ab"}}


MANIFEST_REST = {"scale_kind": "scale", "source": {"name": "array", "sha256": "0"}, "provenance": {"seed": 0}}


def frame(t, size=(6, 8)):
    depth = torch.arange(size[0] * size[1]).reshape(size).float() + 1 + t
    depth[0, 0], depth[0, 1] = torch.nan, torch.inf
    return FrameMaps(t, depth, torch.full(size, 0.25), torch.full(size, 0.5))


def write_result(folder, num_frames=3, precision="float32", with_poses=True):
    writer = StoreWriter(folder, num_frames, (6, 8), precision)
    for t in range(num_frames):
        writer.write(frame(t), np.full((6, 8, 3), 10 * t, np.uint8))
    per_frame = {
        "intrinsics": np.tile(np.diag([7.0, 7.0, 1.0]), (num_frames, 1, 1)),
        "times_s": np.arange(num_frames) / 10,
        "source_frames": np.arange(num_frames),
        "scene": np.zeros(num_frames, np.int64),
        "reliable": np.ones(num_frames, bool),
    }
    if with_poses:
        per_frame["c2w"] = np.tile(np.eye(4), (num_frames, 1, 1))
    writer.finish(per_frame, MANIFEST_REST, {"seconds": {"predict": 1.0}, "worst": float("nan")})
    return folder


def run_once(output, **options):
    with Workspace(output, SETTINGS, **options) as work:
        write_result(work.result)
        return work.publish()


def begin(output):
    """A run that dies after its first window."""
    work = Workspace(output, SETTINGS).__enter__()
    (work.windows / "window_000000_try0.zarr.zip").write_text("done")
    work.__exit__(RuntimeError, RuntimeError("killed"), None)
