"""Mid-Air: flights of a drone through rendered landscapes; the left camera.

Get it from https://midair.ulg.ac.be (CC BY-NC-SA 4.0).

- Depth: PNG of 16 bits that are half-precision numbers, in metres, and they are distances to the camera's centre; turned
  into z-depth here. Beyond 1,250 m (the limit of the authors' viewer) it is taken for the sky (+inf): our reading.
- Cameras: 1024 x 1024, field of view 90 degrees: focal length half the width, principal point in the middle. The hdf5
  file has the body's position and attitude (w first) at 100 Hz in NED axes; picture k is at row 4 k. The left camera is
  taken to sit at the body's origin looking along its x axis, as the data set's authors do in M4Depth.
- Times: picture number / 25.

Source: https://midair.ulg.ac.be/tech_specs.html and data_organization.html; hdf5-depth_viewer.py of
montefiore-institute/midair-dataset; scripts/midair-split-generator.py, dataloaders/midair.py and issue 6 (distance, not
depth) of michael-fonder/M4Depth.
"""

from pathlib import Path

import numpy as np

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.datasets.pieces import (
    constant_intrinsics,
    float16_png,
    frame_numbers,
    known_depth,
    list_files,
    map_frames,
    map_size,
    open_hdf5,
    range_to_depth,
    rgb_frames,
    same_stems,
)
from geo4d.formats.cameras import quaternions_to_poses

FPS, ROWS_PER_PICTURE = 25.0, 4
SKY = 1250.0
RECORDS = "sensor_records.hdf5"


def _find(root: Path) -> dict[str, Path]:
    def trajectories(climate: Path) -> list[Path]:
        return sorted(path for path in (climate / "color_left").glob("trajectory_*") if path.is_dir())

    climates = [root, *sorted(root.glob("*")), *sorted(root.glob("*/*"))]
    return {
        "/".join((*climate.relative_to(root).parts, path.name)): path
        for climate in climates
        if climate.is_dir()
        for path in trajectories(climate)
    }


def _load(folder: Path, name: str) -> Sequence:
    import torch

    from geo4d.geometry.poses import ned_to_opencv

    climate, trajectory = folder.parent.parent, folder.name
    frames = list_files(folder)
    depth_files = list_files(climate / "depth" / trajectory, (".png",))
    if not frames or not depth_files:
        raise missing(
            READER, climate, f"{len(frames)} pictures and {len(depth_files)} depth maps of {trajectory}"
        )
    depth_files = same_stems(frames, depth_files, READER, climate, f"depth maps in depth/{trajectory}")
    records = climate / RECORDS
    if not records.is_file():
        raise missing(READER, climate, f"no {RECORDS}")
    numbers = frame_numbers(frames)
    with open_hdf5(records) as file:
        if trajectory not in file:
            raise missing(READER, climate, f"{trajectory} is not in {RECORDS}")
        truth = file[trajectory]["groundtruth"]
        positions, attitudes = np.asarray(truth["position"]), np.asarray(truth["attitude"])
    rows = numbers * ROWS_PER_PICTURE
    if rows.max() >= min(len(positions), len(attitudes)):
        raise missing(
            READER,
            climate,
            f"{len(positions)} rows of {trajectory}, picture {numbers.max()} is at {rows.max()}",
        )
    ned = quaternions_to_poses(positions[rows].astype(np.float64), attitudes[rows].astype(np.float64))
    height, width = map_size(map_frames(depth_files[:1], float16_png))
    intrinsics = constant_intrinsics(
        len(frames), width / 2, width / 2, width / 2, height / 2, integer_centres=False
    )

    def depth(path: Path) -> np.ndarray:
        distance = float16_png(path)
        return np.where(distance > SKY, np.inf, known_depth(range_to_depth(distance, intrinsics[0])))

    return Sequence(
        name=name,
        dataset="midair",
        times_s=numbers / FPS,
        size=(height, width),
        rgb=rgb_frames(frames),
        depth=map_frames(depth_files, depth),
        intrinsics=intrinsics,
        c2w=ned_to_opencv(torch.from_numpy(ned)).numpy(),
        depth_source="rendered",
        pose_source="simulated",
        files=(*frames, *depth_files, records),
    )


READER = Reader(
    name="midair",
    title="Mid-Air",
    url="https://midair.ulg.ac.be (CC BY-NC-SA 4.0)",
    layout=f"<set>/<climate>/color_left/trajectory_NNNN/NNNNNN.JPEG, depth/trajectory_NNNN/NNNNNN.PNG, {RECORDS}.",
    find=_find,
    load=_load,
)
