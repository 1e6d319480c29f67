"""From a clip to arrays, a point cloud and a score: ``python examples/reconstruct_clip.py OUT``.

Uses the bundled model and the example clip beside this script; OUT is a folder for the results.
"""

import sys
from pathlib import Path

import geo4d
from geo4d.evaluation.run import PROTOCOLS, load_ground_truth, score
from geo4d.export import ExportConfig, save

HERE = Path(__file__).parent


def main(out: Path) -> None:
    scene = geo4d.reconstruct(HERE / "clip.mp4", out / "scene", overwrite=True)
    print(f"{scene.num_frames} frames of {scene.size}, scale kind: {scene.scale_kind}")

    depth = scene.depth[7]  # [H, W]: NaN invalid, +inf sky
    points = scene.points("world")[7]  # [H, W, 3]
    print(f"frame 7: median depth {float(sorted(depth[scene.valid[7]])[scene.valid[7].sum() // 2]):.3f}")
    print(f"the pixel in the middle lies at {points[scene.size[0] // 2, scene.size[1] // 2].round(3)}")
    print(f"its camera stands at {scene.c2w[7, :3, 3].round(3)}")

    (cloud,) = save(
        scene, out / "cloud.ply", "ply", ExportConfig(frames=tuple(range(0, 32, 8)), voxel_size=0.01)
    )
    print(f"point cloud: {cloud}")

    truth = load_ground_truth(HERE / "clip_truth")
    result = score(scene, truth, PROTOCOLS["median"]).to_json()
    print({name: result[name] for name in ("abs_rel", "delta_125", "coverage", "rpe_rot_deg")})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/reconstruct_clip.py OUT")
    main(Path(sys.argv[1]))
