"""The frozen evaluation set: 64 sequences with their own seeds and their own textures, never shown to training.

The definition is data in this file. ``heldout.json`` holds its hash and sampled pixels of every sequence; a test draws
them again, so that no change of the generator can pass unseen. If one has to change the pictures, it must keep the old
ones for this set.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib import resources
from typing import Any

import numpy as np

from geo4d.synthetic.camera_paths import CameraKind
from geo4d.synthetic.render import SyntheticClip, iter_frames, make_scene, render_clip
from geo4d.synthetic.scene import SceneConfig, SceneKind

NUM_SEQUENCES = 64
NUM_FRAMES = 24
SIZE = (144, 256)
"""(height, width); other sizes of the same aspect ratio show the same scenes."""

_FIRST_SEED = 7_300_000_000
_FPS = (8.0, 12.0, 16.0, 24.0)

# kind -> camera of every sequence; 45 / 25 / 20 / 5 / 5 % of kinds and 20 % (13) static cameras
_CAMERAS: dict[SceneKind, tuple[tuple[CameraKind, int], ...]] = {
    "object_on_ground": (
        ("static", 6),
        ("pan", 5),
        ("handheld", 7),
        ("dolly", 5),
        ("orbit", 5),
        ("driving", 1),
    ),
    "street": (("static", 3), ("pan", 3), ("handheld", 2), ("dolly", 2), ("driving", 6)),
    "room": (("static", 3), ("pan", 2), ("handheld", 3), ("dolly", 3), ("orbit", 2)),
    "terrain": (("handheld", 1), ("dolly", 1), ("driving", 1)),
    "flying": (("static", 1), ("orbit", 1), ("dolly", 1)),
}


def heldout_configs() -> tuple[SceneConfig, ...]:
    """The 64 scenes, in order. Names are ``heldout_00`` to ``heldout_63``."""
    configs: list[SceneConfig] = []
    for kind, cameras in _CAMERAS.items():
        for camera, count in cameras:
            for _ in range(count):
                number = len(configs)
                configs.append(
                    SceneConfig(
                        seed=_FIRST_SEED + number,
                        kind=kind,
                        camera=camera,
                        num_frames=NUM_FRAMES,
                        fps=_FPS[number % len(_FPS)],
                        aspect=SIZE[0] / SIZE[1],
                        zoom=number % 16 == 11,
                        bank="heldout",
                    )
                )
    return tuple(configs)


def heldout_name(number: int) -> str:
    """Name of sequence ``number`` in result files."""
    return f"heldout_{number:02d}"


def iter_heldout(
    size: tuple[int, int] = SIZE, numbers: Iterable[int] | None = None, with_flow: bool = False
) -> Iterator[SyntheticClip]:
    """Draw the sequences one after the other.

    Args:
        size: (height, width); scores are only comparable at equal size.
        numbers: which sequences; default all 64.
        with_flow: also exact optical flow.
    Raises:
        MissingExtraError: numba is not installed.
        IndexError: a number is not in 0..63.
    """
    configs = heldout_configs()
    for number in range(NUM_SEQUENCES) if numbers is None else numbers:
        yield render_clip(make_scene(configs[number]), size, with_flow=with_flow)


def definition_hash() -> str:
    """SHA-256 over the definition: seeds, kinds, cameras, lengths, rates, size."""
    definition = {"size": SIZE, "scenes": [asdict(config) for config in heldout_configs()]}
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


def fingerprint(number: int) -> dict[str, Any]:
    """Sampled truth of one sequence: colour, depth, masks and cameras at fixed pixels of three frames.

    Values are compared with a small tolerance, because the last bit of a sine may differ between machines.
    """
    scene = make_scene(heldout_configs()[number])
    rows, columns = np.meshgrid(np.linspace(9, SIZE[0] - 9, 3), np.linspace(9, SIZE[1] - 9, 5), indexing="ij")
    row, column = rows.astype(int).ravel(), columns.astype(int).ravel()
    samples: dict[str, Any] = {"rgb": [], "depth": [], "object_id": [], "dynamic": [], "c2w": [], "focal": []}
    for frame in iter_frames(scene, SIZE, frames=(0, NUM_FRAMES // 2, NUM_FRAMES - 1)):
        depth = frame.depth[row, column].numpy().astype(np.float64)
        samples["rgb"].append(frame.rgb[row, column].numpy().mean(-1).round(1).tolist())
        samples["depth"].append(np.where(np.isfinite(depth), depth.round(4), -1.0).tolist())
        samples["object_id"].append(frame.object_id[row, column].tolist())
        samples["dynamic"].append(frame.dynamic[row, column].int().tolist())
        samples["c2w"].append(frame.c2w[:3].double().numpy().round(5).ravel().tolist())
        samples["focal"].append(round(float(frame.intrinsics[0, 0]), 4))
    return {"attempt": scene.attempt, "primitives": scene.num_primitives, **samples}


def recorded() -> dict[str, Any]:
    """The committed record: ``definition`` (hash) and ``fingerprints`` (list of 64)."""
    return json.loads(resources.files("geo4d.synthetic").joinpath("heldout.json").read_text(encoding="utf-8"))
