"""Reads exported folders by nerfstudio's dataparser and by COLMAP, and compares with the results they were made from.

    python tests/parsers/check_parsers.py FOLDER

Runs in an environment that has nerfstudio and pycolmap and nothing of geo4d; results are read by zarr. Exits with 1
unless everything agrees. Pixels are (x, y), the first centre is (0.5, 0.5).
"""

import importlib.util
import json
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import torch
import zarr
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.datasets.depth_dataset import DepthDataset

PIXELS = 0.02
"""Points are so near to their pixels; poses of nerfstudio are float32."""
STEP = 7
"""Every so many pixels of a map are followed."""


@dataclass
class Result:
    """What ``geo4d reconstruct`` stored: OpenCV axes, pixels of the maps."""

    depth: np.ndarray  # [T, H, W], NaN invalid, +inf sky
    moving: np.ndarray  # [T, H, W]
    intrinsics: np.ndarray  # [T, 3, 3]
    c2w: np.ndarray  # [T, 4, 4]

    @classmethod
    def load(cls, folder: Path) -> "Result":
        arrays = zarr.open_group(str(folder / "arrays.zarr"), mode="r")
        names = {"depth": "depth", "moving": "dynamic", "intrinsics": "intrinsics", "c2w": "c2w"}
        return cls(**{field: np.asarray(arrays[name]).astype(np.float64) for field, name in names.items()})

    def points(self, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels [N, 2] of the maps that have depth, their z-depth [N] and world points [N, 3]."""
        y, x = (
            grid[STEP // 2 :: STEP, STEP // 2 :: STEP].ravel() for grid in np.indices(self.depth.shape[1:])
        )
        z = self.depth[frame, y, x]
        x, y, z = (values[np.isfinite(z)] for values in (x + 0.5, y + 0.5, z))
        rays = np.stack([x, y, np.ones_like(x)], axis=1) @ np.linalg.inv(self.intrinsics[frame]).T
        world = (rays * z[:, None]) @ self.c2w[frame, :3, :3].T + self.c2w[frame, :3, 3]
        return np.stack([x, y], axis=1), z, world

    def project(self, frame: int, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [N, 2] of the maps and z-depth [N]."""
        camera = (world - self.c2w[frame, :3, 3]) @ self.c2w[frame, :3, :3]
        return (camera @ self.intrinsics[frame].T)[:, :2] / camera[:, 2:], camera[:, 2]

    def enlargement(self, height: int, width: int) -> np.ndarray:
        """(x, y) from pixels of the maps to those of pictures."""
        return np.array([width / self.depth.shape[2], height / self.depth.shape[1]])

    def still(self, frame: int, height: int, width: int) -> np.ndarray:
        return cv2.resize(self.moving[frame], (width, height), interpolation=cv2.INTER_LINEAR) < 0.5


class Findings:
    """What does not agree, and the figures of what was compared."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.figures: list[str] = []

    def within(self, what: str, value: float, limit: float, unit: str = "") -> None:
        text = f"{what} {value:.2g}{unit}"
        self.figures.append(text)
        if not value <= limit:
            self.faults.append(f"{text}, expected {limit:g} at most")

    def equal(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.faults.append(f"{what}: {found}, expected {expected}")


def worst(before: float, errors: np.ndarray) -> float:
    """Infinite where one is not a number, as pixels of points behind a camera are."""
    return max(before, float(np.nan_to_num(np.abs(errors), nan=np.inf).max(initial=0)))


def number_of(name: str | Path) -> int:
    """Of the frame in the result: ``frame_000012.png`` is 12."""
    return int(Path(name).stem.split("_")[1])


def share_apart(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    return float(np.mean(np.concatenate([(a != b).ravel() for a, b in zip(found, expected, strict=True)])))


def outputs_of(folder: Path) -> Iterator[DataparserOutputs]:
    """Of both splits. ``load_3D_points`` is what nerfstudio's own ``splatfacto`` gives its dataparser; no other flag."""
    for split in ("train", "val"):
        yield (
            NerfstudioDataParserConfig(data=folder, load_3D_points=True)
            .setup()
            .get_dataparser_outputs(split=split)
        )


def check_nerfstudio(folder: Path, result: Result, findings: Findings) -> None:
    num_frames = len(result.depth)
    factor = json.loads((folder / "transforms.json").read_text(encoding="utf-8"))["geo4d"]["scale_factor"]
    frames, off, steps, empty, masks, still = [], 0.0, 0.0, [], [], []
    for split, outputs in zip(("train", "val"), outputs_of(folder), strict=True):
        expected = math.ceil(0.9 * num_frames)
        expected = expected if split == "train" else num_frames - expected
        findings.equal(f"pictures to {split}", len(outputs.image_filenames), expected)
        cameras, scale = outputs.cameras, outputs.dataparser_scale
        findings.equal("lens", {int(kind) for kind in cameras.camera_type}, {CameraType.PERSPECTIVE.value})
        findings.equal("distortion", float(cameras.distortion_params.abs().max()), 0.0)
        findings.equal("unit of depth", outputs.metadata["depth_unit_scale_factor"], 0.001)
        transform = outputs.dataparser_transform.double().numpy()
        dataset = DepthDataset(outputs)
        for index, name in enumerate(dataset.image_filenames):
            frame = number_of(name)
            frames.append(frame)
            height, width = int(cameras.height[index]), int(cameras.width[index])
            data = dataset[index]
            findings.equal(f"size of picture {frame}", tuple(data["image"].shape[:2]), (height, width))
            # The world of the result, in nerfstudio's, and where nerfstudio's rays end.
            pixels, z, world = result.points(frame)
            there = (world * factor @ transform[:, :3].T + transform[:, 3]) * scale
            z = z * factor * scale
            xy = torch.from_numpy(pixels * result.enlargement(height, width)).float()
            rays = cameras.generate_rays(torch.full((len(xy), 1), index), coords=xy.flip(1))
            lengths = rays.metadata["directions_norm"].double().numpy() * z[:, None]
            ends = rays.origins.double().numpy() + rays.directions.double().numpy() * lengths
            distance = np.linalg.norm(ends - there, axis=1) / z * float(cameras.fx[index])
            off = worst(off, distance)
            # Depth in nerfstudio's unit; a step is what one of 16 bits tells.
            step = outputs.metadata["depth_unit_scale_factor"] * scale
            truth = cv2.resize(
                result.depth[frame] * factor * scale, (width, height), interpolation=cv2.INTER_NEAREST
            )
            depth = data["depth_image"][..., 0].double().numpy()
            has = np.isfinite(truth) & (truth <= 65535.5 * step)
            empty.append(((depth == 0) == has).ravel())
            steps = worst(steps, (depth - truth)[has & (depth > 0)] / step)
            if "mask" in data:
                masks.append(data["mask"][..., 0].numpy())
                still.append(result.still(frame, height, width))
        if split == "train":
            check_seeds(outputs, dataset, result, findings)
    findings.equal("frames", sorted(frames), list(range(num_frames)))
    findings.equal("masks", len(masks), num_frames)
    if masks:
        findings.within("masks differ in", 100 * share_apart(masks, still), 0, " %")
        findings.equal("something moves", any((~mask).any() for mask in masks), True)
    findings.within("rays end off by", off, PIXELS, " px")
    findings.within("depth off by", steps, 0.51, " of a step")
    findings.within("depth is there or not wrongly in", 100 * float(np.concatenate(empty).mean()), 0, " %")


def check_seeds(
    outputs: DataparserOutputs, dataset: DepthDataset, result: Result, findings: Findings
) -> None:
    """Points to start from lie on the depth of the frame that they agree with best, and have its colour."""
    points = outputs.metadata.get("points3D_xyz")
    if points is None or len(points) < 500 * len(result.depth):
        findings.faults.append(f"{0 if points is None else len(points)} points to start from")
        return
    points, colours = points.double().numpy(), outputs.metadata["points3D_rgb"].numpy().astype(float)
    best, apart = np.full(len(points), np.inf), np.full(len(points), np.inf)
    cameras = outputs.cameras
    for index in range(len(dataset)):
        pose = cameras.camera_to_worlds[index].double().numpy()  # looks along -z, +y up
        camera = (points - pose[:, 3]) @ pose[:, :3] * (1, -1, -1)
        z = np.where(camera[:, 2] > 0, camera[:, 2], np.nan)
        x = float(cameras.fx[index]) * camera[:, 0] / z + float(cameras.cx[index])
        y = float(cameras.fy[index]) * camera[:, 1] / z + float(cameras.cy[index])
        data = dataset[index]
        depth, picture = data["depth_image"][..., 0].double().numpy(), 255 * data["image"][..., :3].numpy()
        height, width = depth.shape
        (inside,) = np.nonzero((x >= 0) & (x < width) & (y >= 0) & (y < height))
        row, column = y[inside].astype(int), x[inside].astype(int)
        difference = np.abs(depth[row, column] / z[inside] - 1)
        nearer = difference < best[inside]
        inside, row, column = inside[nearer], row[nearer], column[nearer]
        best[inside] = difference[nearer]
        apart[inside] = np.abs(picture[row, column] - colours[inside]).mean(axis=1)
    findings.figures.append(f"{len(points)} points")
    findings.within(
        "points off their depth by (95th percentile)",
        100 * float(np.quantile(best, 0.95, method="higher")),
        0.2,
        " %",
    )
    findings.within("their colours by (median)", float(np.median(apart)), 10, " of 255")


def check_colmap(folder: Path, result: Result, findings: Findings) -> None:
    num_frames = len(result.depth)
    model, text = pycolmap.Reconstruction(), pycolmap.Reconstruction()
    model.read_binary(str(folder / "sparse/0"))
    text.read_text(str(folder / "sparse/0"))
    for what in ("num_reg_images", "num_points3D", "compute_num_observations"):
        findings.equal(f"{what} of the text", getattr(text, what)(), getattr(model, what)())
    findings.equal("valid", (model.is_valid(), text.is_valid()), (True, True))
    frames = sorted(number_of(image.name) for image in model.images.values())
    findings.equal("frames", frames, list(range(num_frames)))
    off, sizes, depths, seen_off = 0.0, set(), [], 0.0
    best = np.full(max(model.points3D, default=0) + 1, np.inf)  # of the frames that a point was seen in
    for image in model.images.values():
        frame, camera, pose = number_of(image.name), image.camera, image.cam_from_world()
        picture = pycolmap.Bitmap.read(str(folder / "images" / image.name), as_rgb=True)
        sizes |= {(camera.height, camera.width), (picture.height, picture.width)}
        findings.equal("camera model", camera.model, pycolmap.CameraModelId.PINHOLE)
        enlargement = result.enlargement(camera.height, camera.width)
        for other in {
            frame,
            min(frame + 3, num_frames - 1),
            max(frame - 3, 0),
        }:  # points of other frames, too
            world = result.points(other)[2]
            expected, z = result.project(frame, world)
            expected, world = expected[z > 0] * enlargement, world[z > 0]
            pixels = camera.img_from_cam(pose * world)
            off = worst(off, pixels - expected)
        # What the model says that the picture sees.
        seen = [point for point in image.points2D if point.has_point3D()]
        points = np.array([model.points3D[point.point3D_id].xyz for point in seen])
        xy = np.array([point.xy for point in seen])
        seen_off = worst(seen_off, camera.img_from_cam(pose * points) - xy)
        z = (pose * points)[:, 2]
        x, y = np.floor(xy / enlargement + 1e-6).astype(int).T
        inside = (x >= 0) & (y >= 0) & (x < result.depth.shape[2]) & (y < result.depth.shape[1])
        findings.equal(f"observations outside picture {frame}", int((~inside).sum()), 0)
        depths.append(np.abs(result.depth[frame, y[inside], x[inside]] / z[inside] - 1))
        ids = np.array([point.point3D_id for point in seen])[inside]
        best[ids] = np.minimum(best[ids], depths[-1])
    best = best[np.array(sorted(model.points3D), int)]
    findings.equal("sizes", len(sizes), 1)
    findings.figures.append(
        f"{model.num_points3D()} points, seen {model.compute_mean_track_length():.1f} times"
    )
    findings.within("points off their pixels by", off, PIXELS, " px")
    findings.within("observations by", seen_off, PIXELS, " px")
    model.update_point_3d_errors()
    findings.within("error by COLMAP", model.compute_mean_reprojection_error(), PIXELS, " px")
    findings.within(
        "points off their depth by (95th percentile)",
        100 * float(np.quantile(best, 0.95, method="higher")),
        0.2,
        " %",
    )
    findings.within(
        "depth of all observations (95th percentile)",
        100 * float(np.quantile(np.concatenate(depths), 0.95, method="higher")),
        3,
        " %",
    )
    if model.num_points3D() < 500 * num_frames or model.compute_mean_track_length() < 3:
        findings.faults.append("too few points or observations")
    check_masks(folder, result, findings)


def features(folder: Path, database: Path, masks: Path | None) -> dict[int, np.ndarray]:
    """Frame -> pixels [N, 2] of COLMAP's features."""
    reader, extraction = pycolmap.ImageReaderOptions(), pycolmap.FeatureExtractionOptions()
    if masks is not None:
        reader.mask_path = str(masks)
    extraction.num_threads = 1
    pycolmap.extract_features(
        str(database), str(folder / "images"), reader_options=reader, extraction_options=extraction
    )
    with pycolmap.Database.open(str(database)) as opened:
        images = opened.read_all_images()
        return {number_of(one.name): opened.read_keypoints(one.image_id)[:, :2] for one in images}


def check_masks(folder: Path, result: Result, findings: Findings) -> None:
    """COLMAP finds features of what moves, and none of them with the masks."""
    counts = []
    for masks in (None, folder / "masks"):
        database = folder.parent / f"{folder.name}_{'masked' if masks else 'all'}.db"
        found = features(folder, database, masks)
        moving = still = 0
        for frame, pixels in found.items():
            height, width = cv2.imread(str(folder / "images" / f"frame_{frame:06d}.png")).shape[:2]
            x, y = np.clip(np.floor(pixels).astype(int), 0, (width - 1, height - 1)).T
            stays = result.still(frame, height, width)[y, x]
            moving, still = moving + int((~stays).sum()), still + int(stays.sum())
        findings.equal("pictures that COLMAP took", len(found), len(result.depth))
        counts.append((moving, still))
    (moving, still), (masked_moving, masked_still) = counts
    findings.figures.append(f"{moving} features of what moves, {masked_moving} of them with masks")
    if not moving > 20 or masked_moving > 0 or masked_still < 0.95 * still:
        findings.faults.append(f"features that (move, stay): {counts[0]}, and {counts[1]} with masks")


def main(folder: Path) -> int:
    if importlib.util.find_spec("geo4d") is not None:
        sys.exit("expected an environment without geo4d")
    warnings.filterwarnings("ignore", category=UserWarning, module="nerfstudio")  # of torch, once a line
    pycolmap.logging.minloglevel = pycolmap.logging.WARNING.value
    checks = {"nerfstudio": check_nerfstudio, "colmap": check_colmap}
    cases, wrong = json.loads((folder / "cases.json").read_text(encoding="utf-8")), 0
    for case in cases:
        findings = Findings()
        # What a parser does not take ends the check, with the parser's own traceback.
        checks[case["format"]](folder / case["export"], Result.load(folder / case["result"]), findings)
        print(f"{case['export']}: {'; '.join(findings.figures)}")
        print(f"  {'; '.join(findings.faults[:8]) or 'agrees'}")
        wrong += bool(findings.faults)
    print(f"{len(cases) - wrong} of {len(cases)} folders agree")
    return 1 if wrong or not cases else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
