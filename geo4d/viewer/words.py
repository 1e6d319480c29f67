"""A reconstruction in plain words: what the camera did, what is measured, what is assumed, what is of no use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geo4d.results.verdict import judge_result
from geo4d.types import Reconstruction


@dataclass(frozen=True)
class Words:
    """Sentences for people.

    Attributes:
        verdict: one sentence; doubtful or not.
        doubtful: whether the result should not be used as it is.
        camera: what it did, a sentence per shot.
        measured: what the pictures, or given data, determine.
        assumed: what comes from a network or a setting alone.
        unusable: frames and windows to leave out.
    """

    verdict: str
    doubtful: bool
    camera: tuple[str, ...]
    measured: tuple[str, ...]
    assumed: tuple[str, ...]
    unusable: tuple[str, ...]


def describe(reconstruction: Reconstruction) -> Words:
    """The words, from what is stored with the result; no map is read."""
    problems = judge_result(reconstruction).problems
    measured, assumed = _sources(reconstruction)
    unusable = _unusable(reconstruction)
    verdict = f"Doubtful: {'; '.join(problems)}." if problems else _usable(reconstruction, bool(unusable))
    return Words(
        verdict,
        bool(problems),
        tuple(_camera(reconstruction)),
        tuple(measured),
        tuple(assumed),
        tuple(unusable),
    )


def ranges(numbers: Sequence[int] | np.ndarray) -> str:
    """'0-3, 7' from sorted numbers."""
    groups = np.split(np.asarray(numbers), np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{g[0]}-{g[-1]}" if len(g) > 1 else f"{g[0]}" for g in groups if len(g))


def _shots(reconstruction: Reconstruction) -> Sequence[Mapping[str, Any]]:
    return reconstruction.diagnostics.get("motion") or ()


_KINDS = {
    "rotation": "only turns on the spot",
    "static": "stands still",
    "unknown": "moves in a way that no camera path explains",
}


def _usable(reconstruction: Reconstruction, but: bool) -> str:
    """The verdict where nothing is wrong: how much of it is measured."""
    kinds = {shot["kind"] for shot in _shots(reconstruction)}
    but_for = ", but for what is listed under 'Leave out'" if but else ""
    if not kinds:
        return f"Usable{but_for}."
    if "parallax" not in kinds:
        still = " and ".join(words for kind, words in _KINDS.items() if kind in kinds)
        return f"Usable with care{but_for}: the camera {still}, so depth is a guess."
    part = "" if kinds == {"parallax"} else " in a part of the video, and only there"
    return f"Usable{but_for}: the camera moves{part}, so depth and path are measured."


def _camera(reconstruction: Reconstruction) -> list[str]:
    if reconstruction.c2w is None:
        return ["This result has no camera poses; 'geo4d pose' adds them."]
    shots = _shots(reconstruction)
    if not shots:
        return [f"It {_travel(reconstruction, slice(None))}; nothing was noted about how its path was found."]
    sentences = []
    for shot in shots:
        which = f"Frames {shot['start']}-{shot['stop'] - 1}: it" if len(shots) > 1 else "It"
        what = _KINDS.get(shot["kind"])
        if what is None or shot["kind"] == "rotation":
            travel = _travel(reconstruction, slice(shot["start"], shot["stop"]))
            what = f"{what}: it {travel}" if what else f"moves through the scene: it {travel}"
        sentences.append(f"{which} {what}.")
    return sentences


def _travel(reconstruction: Reconstruction, frames: slice) -> str:
    """How far it goes and turns; the farthest from where it began, which a path that shakes does not add up."""
    c2w = np.asarray(reconstruction.c2w, np.float64)[frames]
    length = np.linalg.norm(np.diff(c2w[:, :3, 3], axis=0), axis=1).sum()
    cosine = (np.einsum("tij,ij->t", c2w[:, :3, :3], c2w[0, :3, :3]) - 1) / 2
    degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1))).max()
    unit = "m" if reconstruction.scale_kind == "metric" else "units"
    return f"goes {length:.3g} {unit} and turns by up to {degrees:.1f} degrees"


def _sources(reconstruction: Reconstruction) -> tuple[list[str], list[str]]:
    """What is measured, and what is assumed."""
    diagnostics, shots = reconstruction.diagnostics, _shots(reconstruction)
    measured, assumed = [], []
    windows, relative = len(diagnostics.get("windows") or ()), len(diagnostics.get("relative_windows") or ())
    moving = [shot for shot in shots if shot["kind"] == "parallax"]
    if shots and not moving:
        assumed.append(
            "Depth is the network's guess from single pictures: without a camera that moves sideways nothing measures it."
        )
    elif moving and windows:
        measured.append(
            f"Depth rests on the motion of the camera in {windows - relative} of {windows} windows; it is measured at "
            "tracked points and textured places, and filled in by the network between them."
        )
        if relative:
            assumed.append(
                f"In {relative} of {windows} windows depth is the network's guess from single pictures."
            )
    elif not shots:
        assumed.append("Nothing was noted about motion, so depth counts as the network's guess.")
    if moving and reconstruction.c2w is not None:
        measured.append("The path of the camera, from tracked points.")
    _lens(reconstruction, shots, measured, assumed)
    metric = diagnostics.get("metric")
    if metric is not None:
        measured.append(f"Lengths are metres ({metric['statement']}).")
    elif reconstruction.scale_kind == "metric":
        assumed.append("Lengths are metres as the network estimates them.")
    else:
        assumed.append(
            "The size of the scene: all lengths are up to one unknown factor (--trajectory or --depth measure it)."
        )
    return measured, assumed


_SAME_LENS = 0.5
"""Degrees of the field of view within which frames are said to have one lens."""


def _lens(
    reconstruction: Reconstruction,
    shots: Sequence[Mapping[str, Any]],
    measured: list[str],
    assumed: list[str],
) -> None:
    focal = np.asarray(reconstruction.intrinsics, np.float64)[:, 0, 0]
    degrees = np.degrees(2 * np.arctan(0.5 * reconstruction.size[1] / focal))
    view = f"{degrees.mean():.1f} degrees across the width"
    if float(np.ptp(degrees)) > _SAME_LENS:
        view = f"between {degrees.min():.1f} and {degrees.max():.1f} degrees across the width"
    config = reconstruction.provenance.get("config") or {}
    if config.get("fov_deg") is not None or config.get("intrinsics") is not None:
        measured.append(f"The lens was given: {view}.")
    elif any(shot.get("focal_assumed") for shot in shots):
        assumed.append(f"The lens: {view}; the motion hardly tells it (--fov-deg sets it).")
    elif any(shot["kind"] in ("parallax", "rotation") for shot in shots):
        measured.append(f"The lens, from tracked points: {view}.")
    else:
        assumed.append(f"The lens: {view} (--fov-deg sets it).")


def _unusable(reconstruction: Reconstruction) -> list[str]:
    diagnostics, total = reconstruction.diagnostics, reconstruction.num_frames
    sentences = []
    if reconstruction.reliable is not None and not np.asarray(reconstruction.reliable).all():
        bad = np.flatnonzero(~np.asarray(reconstruction.reliable))
        sentences.append(f"{len(bad)} of {total} frames are unreliable: {ranges(bad)}.")
    blank = diagnostics.get("frames_without_picture") or ()
    if blank:
        sentences.append(f"{len(blank)} of {total} frames show no usable picture: {ranges(sorted(blank))}.")
    lost = [shot for shot in _shots(reconstruction) if shot["kind"] == "unknown"]
    if lost and total > 1:
        which = ", ".join(f"{shot['start']}-{shot['stop'] - 1}" for shot in lost)
        sentences.append(f"No camera explains the motion of frames {which}.")
    windows = sorted({int(entry["window"]) for entry in diagnostics.get("dropped") or ()})
    if windows:
        sentences.append(
            f"Parts of windows {ranges(windows)} were left out of the alignment; see the table of windows."
        )
    return sentences
