"""Writes exports of small exact shots and, beside each, what a program that opens it must see: ``shots.json``.

    python tests/blender/write_shots.py FOLDER

``check_in_blender.py`` reads the folder in an environment of its own; it shares no code with this.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from geo4d.export import ExportConfig, Reference, save
from geo4d.geometry.poses import rigid, so3_exp
from geo4d.types import Reconstruction

NUM_FRAMES = 4
SHOTS = {
    "wide": ((36, 64), (0.55, 0.44), 16.0, 1.0),
    "portrait": ((64, 36), (0.43, 0.56), 25.0, 1.0),
    "centred": ((36, 64), (0.5, 0.5), 24.0, 1.0),
    "centred_portrait": ((64, 36), (0.5, 0.5), 30.0, 1.0),
    "oblong": ((36, 64), (0.53, 0.46), 24000 / 1001, 1.1),
}
"""Name -> size, principal point in shares of the picture, frames per second, width of a pixel over its height."""


def make(size: tuple[int, int], centre: tuple[float, float], fps: float, aspect: float) -> Reconstruction:
    """A tilted wall, seen by a camera that moves and turns; depths around 0.2, as results without a unit have them."""
    height, width = size
    motion = np.array([0.004, -0.003, 0.005, 0.02, -0.03, 0.025])
    steps = torch.from_numpy(np.outer(np.arange(NUM_FRAMES), motion))
    c2w = rigid(so3_exp(steps[:, 3:]), steps[:, :3]).numpy()
    K = np.array([[60.0, 0, centre[0] * width], [0, 60 * aspect, centre[1] * height], [0, 0, 1]])
    y, x = np.indices(size) + 0.5
    rays = np.stack([x, y, np.ones(size)], axis=-1) @ np.linalg.inv(K).T
    normal = np.array([-0.3, 0.1, 1.0])
    depth = np.stack([(0.2 - pose[:3, 3] @ normal) / (rays @ pose[:3, :3].T @ normal) for pose in c2w])
    rng = np.random.default_rng(0)
    return Reconstruction(
        depth=depth.astype(np.float32),
        confidence=np.full(depth.shape, 0.9, np.float32),
        intrinsics=np.tile(K, (NUM_FRAMES, 1, 1)),
        times_s=np.arange(NUM_FRAMES) / fps,
        source_frames=np.arange(NUM_FRAMES),
        c2w=c2w,
        dynamic=np.zeros(depth.shape, np.float32),
        rgb=rng.random((*depth.shape, 3)).astype(np.float32),
    )


def main(folder: Path) -> None:
    shots = []
    reference = Reference((10.5, 10.5), (30.5, 30.5), 0, 1.0)
    for name, (size, centre, fps, aspect) in SHOTS.items():
        result = make(size, centre, fps, aspect)
        height, width = size
        y, x = np.indices(size) + 0.5
        truth = {
            "size": [height, width],
            "fps": fps,
            "pixel_aspect": aspect,
            "num_frames": NUM_FRAMES,
            "lens_mm": 36 * 60 / max(size),
            "least_depth": float(result.depth.min()),
            "pixels": np.stack([x, y], axis=-1).reshape(-1, 2).tolist(),
        }
        everything = ExportConfig(min_confidence=0, edge_step=0, max_points=0)
        variants = [
            ("usd", f"{name}.usdc", {}, 1),
            ("usd", f"{name}_z.usdz", {"up": "z", "first_frame": 1001}, 1001),
        ]
        variants.append(("usd", f"{name}_metres.usdc", {"reference": reference}, 1))
        if centre == (0.5, 0.5):  # glTF has no place for another one
            variants.append(("glb", f"{name}.glb", {"per_frame": True}, 0))
        for format, file, options, first in variants:
            config = ExportConfig(**{**vars(everything), **options})
            save(result, folder / file, format, config)
            metres = truth["least_depth"]
            if "reference" in options:
                points = result.points("camera")[0]
                metres /= float(np.linalg.norm(points[10, 10] - points[30, 30]))
            shots.append({**truth, "file": file, "first_frame": first, "least_depth": metres})
    (folder / "shots.json").write_text(json.dumps(shots), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
