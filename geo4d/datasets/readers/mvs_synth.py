"""MVS-Synth: short walks through a video game, 100 frames each.

Get it from https://phuang17.github.io/DeepMVS/mvs-synth.html (GTAV_1080, GTAV_720 or GTAV_540; for research; the game's
own terms apply).

- Depth: EXR of one channel, z-depth, +inf in the sky. The unit is not metres (MapAnything measures about 10 to the
  metre by cars and people), so scale is unknown.
- Cameras: ``poses/NNNN.json`` with f_x, f_y, c_x, c_y in pixels and ``extrinsic``, world to camera. The world is
  left-handed and the camera's axes are ours; mirroring the world's y axis makes it right-handed.
- Times: nominal.

Source: MapAnything (conversion/mvs_synth.py) and CUT3R (preprocess_mvs_synth.py), which mirror the world differently and
agree otherwise.
"""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    exr_map,
    intrinsics_rows,
    known_depth,
    list_files,
    load_json,
    map_frames,
    map_size,
    nominal_times,
    rgb_frames,
    same_stems,
)
from geo4d.errors import InputError


def _find(root: Path) -> dict[str, Path]:
    def is_sequence(path: Path) -> bool:
        return (path / "images").is_dir() and (path / "depths").is_dir()

    if is_sequence(root):
        return {root.name: root}
    for base in (root, *sorted(root.glob("GTAV_*"))):
        found = {path.name: path for path in sorted(base.glob("[0-9]*")) if is_sequence(path)}
        if found:
            return found
    return {}


def _load(folder: Path, name: str) -> Sequence:
    frames = list_files(folder / "images")
    depth_files = list_files(folder / "depths", (".exr",))
    camera_files = list_files(folder / "poses", (".json",))
    if not frames or not depth_files or not camera_files:
        counts = (
            f"{len(frames)} pictures, {len(depth_files)} depth maps, {len(camera_files)} cameras in poses/"
        )
        raise missing(READER, folder, counts)
    depth_files = same_stems(frames, depth_files, READER, folder, "depth maps in depths/")
    camera_files = same_stems(frames, camera_files, READER, folder, "cameras in poses/")
    rows, w2c = [], []
    for path in camera_files:
        facts = load_json(path)
        try:
            rows.append([float(facts[key]) for key in ("f_x", "f_y", "c_x", "c_y")])
            w2c.append(np.array(facts["extrinsic"], float).reshape(4, 4))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"expected f_x, f_y, c_x, c_y and extrinsic in {path}: {error!r}") from error
    c2w = np.diag([1.0, -1, 1, 1]) @ np.linalg.inv(np.stack(w2c))
    if not (np.linalg.det(c2w[:, :3, :3]) > 0).all():
        raise InputError(f"expected cameras in a left-handed world in {folder}/poses, got a right-handed one")
    depth = map_frames(depth_files, lambda path: known_depth(exr_map(path, "Y", "Z"), sky_from=np.inf))
    times_s, note = nominal_times(len(frames))
    return Sequence(
        name=name,
        dataset="mvs-synth",
        times_s=times_s,
        size=map_size(depth),
        rgb=rgb_frames(frames),
        depth=depth,
        intrinsics=intrinsics_rows(np.array(rows), integer_centres=False),
        c2w=c2w,
        scale_kind="scale",
        depth_source="rendered",
        pose_source="rendered",
        files=(*frames, *depth_files, *camera_files),
        notes=(note,),
    )


READER = Reader(
    name="mvs-synth",
    title="MVS-Synth",
    url="https://phuang17.github.io/DeepMVS/mvs-synth.html (research use)",
    layout="GTAV_720/NNNN/images/NNNN.png, depths/NNNN.exr, poses/NNNN.json.",
    find=_find,
    load=_load,
)
