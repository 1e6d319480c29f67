"""COLMAP folder: pictures, masks, cameras, points with the pixels that see them."""

from pathlib import Path

import numpy as np

from geo4d.export.common import chosen_frames, poses_of, write_readme
from geo4d.export.config import ExportConfig
from geo4d.export.pictures import pictures_of
from geo4d.export.points import iter_static_points
from geo4d.formats.cameras import invert_poses
from geo4d.formats.colmap import ColmapModel, save_colmap
from geo4d.formats.files import new_folder
from geo4d.formats.images import save_mask
from geo4d.types import Reconstruction

REACH = 10
"""A point is looked for in so many frames before and after its own."""


def save_scene_colmap(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """COLMAP folder: ``images/``, ``masks/`` and ``sparse/0/`` (binary and text) with points and their observations.

    Points are sampled from static, confident pixels of every frame and observed in those of the ``REACH`` frames
    before and after whose depth agrees within 3 %, so that tracks and colours are what COLMAP-based trainers expect.
    Masks are named as COLMAP 4.2 looks for them (``--ImageReader.mask_path``): the picture's name with ``.png`` added,
    black where something moves. ``config.images`` chooses the size of pictures, masks and cameras; points and what sees
    them come from the maps.
    """
    frames = chosen_frames(reconstruction, config, one_world=True)
    pictures = pictures_of(reconstruction, config, "the COLMAP export")
    scale = pictures.scale(reconstruction)
    masked = reconstruction.dynamic is not None
    names = [f"frame_{frame:06d}.png" for frame in frames]
    height, width = reconstruction.size
    intrinsics = np.asarray(reconstruction.intrinsics, np.float64)[frames]
    c2w = poses_of(reconstruction, frames)
    w2c = invert_poses(c2w)
    with new_folder(path) as folder:
        points, colours, owners = [], [], []
        for row, (frame, picture, xyz, rgb) in enumerate(iter_static_points(reconstruction, frames, config)):
            assert rgb is not None
            static = pictures.static(reconstruction, frame)
            pictures.save(folder / "images" / names[row], frame, picture, static if config.alpha else None)
            if masked:
                save_mask(folder / "masks" / f"{names[row]}.png", static)
            points.append(xyz)
            colours.append(rgb)
            owners.append(np.full(len(xyz), row))
        world, owner = np.concatenate(points), np.concatenate(owners)
        seen_points, seen_images, seen_pixels = [], [], []
        for row, frame in enumerate(frames):
            near = slice(*np.searchsorted(owner, [row - REACH, row + REACH + 1]))
            camera = world[near] @ w2c[row, :3, :3].T + w2c[row, :3, 3]
            z = np.where(camera[:, 2] > 0, camera[:, 2], np.nan)
            homogeneous = camera @ intrinsics[row].T
            x, y = homogeneous[:, 0] / z, homogeneous[:, 1] / z
            inside = np.isfinite(z) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            index = np.flatnonzero(inside)
            depth = np.asarray(reconstruction.depth[frame], np.float64)[
                y[index].astype(int), x[index].astype(int)
            ]
            agrees = np.abs(depth - z[index]) <= 0.03 * z[index]
            agrees |= owner[near][index] == row
            index = index[agrees]
            seen_points.append(index + near.start)
            seen_images.append(np.full(len(index), row))
            seen_pixels.append(np.stack([x[index], y[index]], axis=1) * scale)
        model = ColmapModel(
            names=names,
            intrinsics=pictures.intrinsics(reconstruction, frames),
            sizes=[pictures.size] * len(frames),
            c2w=c2w,
            points=world,
            colours=np.concatenate(colours),
            point_errors=np.zeros(len(world)),
            track_points=np.concatenate(seen_points),
            track_images=np.concatenate(seen_images),
            track_pixels=np.concatenate(seen_pixels),
        )
        save_colmap(folder / "sparse" / "0", model)
        files = {
            "images/": pictures.words + (", alpha 0 where something moves" if config.alpha else ""),
            "sparse/0/": "COLMAP model, binary and text (w2c)",
        }
        if masked:
            files["masks/"] = "NAME.png.png for images/NAME.png: 0 (ignored) where something moves, else 255"
        write_readme(folder, reconstruction, config, frames, files)
    return [path]
