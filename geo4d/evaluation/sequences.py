"""The sequences of a layout, loaded by benchmark, by reader, or drawn."""

from pathlib import Path

import torch

from geo4d.datasets.base import Sequence, Tracks
from geo4d.datasets.catalogue import load_reader
from geo4d.evaluation.benchmarks import BENCHMARKS
from geo4d.geometry.poses import inverse, transform

NUM_TRACKS = 1024
"""Surface points that the synthetic benchmark follows for ``depth_change``."""


def load_sequence(kind: str, path: str, name: str) -> Sequence:
    """A sequence of a plan: by benchmark, by reader, or drawn."""
    if kind == "synthetic-heldout":
        return heldout_sequence(int(path))
    if kind.startswith("benchmark:"):
        return BENCHMARKS[kind.removeprefix("benchmark:")].load(Path(path), name)
    reader = load_reader(kind)
    found = reader.find(Path(path))
    # A sample folder holds one sequence, whose inner name may differ from the folder's.
    location = found.get(name) or (next(iter(found.values())) if len(found) == 1 else Path(path))
    return reader.load(location, name)


def heldout_sequence(number: int) -> Sequence:
    """One sequence of the frozen procedural set."""
    from geo4d.synthetic.heldout import SIZE, heldout_configs, heldout_name
    from geo4d.synthetic.render import make_scene, render_clip

    clip = render_clip(make_scene(heldout_configs()[number]), SIZE, num_tracks=NUM_TRACKS)
    assert clip.tracks is not None
    from_world = inverse(clip.c2w.double())
    track_depth = transform(from_world, clip.tracks.points.double().transpose(0, 1))[..., 2]
    depth = torch.where(clip.valid, clip.depth, torch.inf).numpy()
    return Sequence(
        name=heldout_name(number),
        dataset="synthetic",
        times_s=clip.times_s.double().numpy(),
        size=clip.size,
        rgb=clip.rgb.numpy(),
        depth=depth,
        intrinsics=clip.intrinsics.double().numpy(),
        c2w=clip.c2w.double().numpy(),
        dynamic=clip.dynamic.numpy(),
        tracks=Tracks(
            clip.tracks.pixels.transpose(0, 1).numpy(),
            track_depth.float().numpy(),
            clip.tracks.visible.transpose(0, 1).numpy(),
        ),
        depth_source="rendered",
        pose_source="rendered",
    )
