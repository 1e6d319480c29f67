"""3D Ken Burns: captures of rendered scenes, each seen from the four corners of a square.

Get it from https://github.com/sniklaus/3d-ken-burns (CC BY-NC-SA 4.0); colour and depth are separate archives.

- A sequence is one capture: its four views as frames bottom left, bottom right, top right, top left. Captures follow each
  other along no path that is known, and their field of view is drawn anew each time, so they make no video (``still``).
- Depth: EXR of one channel, z-depth in the unit of the baseline, which is 20 between left and right. The unit is not
  stated: scale is unknown. Values beyond 20,000 are unknown (NaN), as CUT3R treats them; nothing marks the sky.
- Cameras: focal length from ``fltFov`` in degrees, principal point in the middle (author's words in issue 39); poses
  from the baseline (issue 37). That the square is as high as it is wide was not verified.

Source: README and issues 37, 39, 71 of sniklaus/3d-ken-burns; files, CUT3R (preprocess_3dkb.py, datasets/threedkb.py).
"""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    centred_field_of_view,
    exr_map,
    known_depth,
    load_json,
    map_frames,
    map_size,
    nominal_times,
    rgb_frames,
)
from geo4d.errors import InputError

BASELINE = 20.0
FAR = 20000.0
VIEWS = {"bl": (0, 0), "br": (1, 0), "tr": (1, -1), "tl": (0, -1)}
"""View -> where it stands, in baselines to the right and down."""


def _find(root: Path) -> dict[str, Path]:
    def captures(scene: Path) -> dict[str, Path]:
        return {
            f"{scene.name}/{path.name.removesuffix('-meta.json')}": path
            for path in sorted(scene.glob("*-meta.json"))
        }

    if captures(root):
        return captures(root)
    scenes = [path for path in sorted(root.iterdir()) if path.name.endswith(("-flying", "-walking"))]
    return {name: path for scene in scenes for name, path in captures(scene).items()}


def _load(path: Path, name: str) -> Sequence:
    number = path.name.removesuffix("-meta.json")
    frames = [path.with_name(f"{number}-{view}-image.png") for view in VIEWS]
    depth_folder = path.parent.with_name(f"{path.parent.name}-depth")
    depth_files = [depth_folder / f"{number}-{view}-depth.exr" for view in VIEWS]
    absent = [file for file in (*frames, *depth_files) if not file.is_file()]
    if absent:
        raise missing(READER, path.parent.parent, f"{absent[0].parent.name}/{absent[0].name} is not there")
    depth = map_frames(depth_files, lambda file: known_depth(exr_map(file), known_to=FAR))
    height, width = map_size(depth)
    if height != width:
        raise InputError(
            f"expected square pictures, for which fltFov is stated, got {height} x {width} in {path.parent}"
        )
    facts = load_json(path)
    try:
        angle = np.deg2rad(float(facts["fltFov"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"expected a number fltFov in {path}, got {facts!r}") from error
    c2w = np.tile(np.eye(4), (len(VIEWS), 1, 1))
    c2w[:, :2, 3] = BASELINE * np.array(list(VIEWS.values()), float)
    times_s, note = nominal_times(len(VIEWS))
    return Sequence(
        name=name,
        dataset="kenburns",
        times_s=times_s,
        size=(height, width),
        rgb=rgb_frames(frames),
        depth=depth,
        intrinsics=centred_field_of_view(len(VIEWS), angle, (height, width)),
        c2w=c2w,
        scale_kind="scale",
        depth_source="rendered",
        pose_source="the stated baseline",
        files=(*frames, *depth_files, path),
        notes=(note, "four views of one moment"),
    )


READER = Reader(
    name="kenburns",
    title="3D Ken Burns",
    url="https://github.com/sniklaus/3d-ken-burns (CC BY-NC-SA 4.0)",
    layout="<scene>-flying|walking/NNNNN-meta.json, NNNNN-bl|br|tl|tr-image.png, "
    "<scene>-flying|walking-depth/NNNNN-bl|br|tl|tr-depth.exr.",
    find=_find,
    load=_load,
    still=True,
)
