"""A reconstruction into the files of a format: what fits is checked, and all of it appears or nothing."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from geo4d.export.common import is_file
from geo4d.export.config import ExportConfig
from geo4d.export.format import Format
from geo4d.export.formats import FORMATS, find_format
from geo4d.export.placement import placed
from geo4d.formats.files import all_or_nothing
from geo4d.types import Reconstruction


def save(
    reconstruction: Reconstruction,
    path: str | Path,
    format: str,
    config: ExportConfig | None = None,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``reconstruction`` as ``format``.

    Args:
        path: the file itself when it carries one of the format's suffixes, else a folder that gets documented names.
        format: a name of ``format_names``.
        config: what goes into it; None takes the defaults.
        overwrite: replace what is there: files of the same names, and folders that an export wrote; files that others
            put there stay.
    Returns:
        the files and folders written.
    Raises:
        ValueError: unknown format, a suffix of another one, frames out of range, the reconstruction lacks what the format
            needs, an option that the format has no use for, or filters that leave no point of a point cloud.
        GeometryError: a point cloud of frames that have no depth at all.
        PluginError: the format's package cannot be used.
        MissingExtraError: the format needs a package that is not installed.
        OutputError: ``path`` exists already or cannot be written.
    """
    path, chosen = Path(path), find_format(format)
    config = _fitting(config or ExportConfig(), path, format, chosen)
    shown, config = placed(reconstruction, config)
    joins = chosen.file_name is not None
    needed = most_bytes(reconstruction, chosen, config)
    with all_or_nothing(path, needed, into_folder=joins, overwrite=overwrite) as place:
        target = place
        if chosen.file_name is not None and not is_file(path, *chosen.suffixes):
            target = place / chosen.file_name
            target.parent.mkdir()
        written = chosen.write(shown, target, config)
    return [path.parent / file.relative_to(place.parent) for file in written]


def save_with(
    reconstruction: Reconstruction,
    path: str | Path,
    format: str | None,
    *,
    overwrite: bool,
    options: Mapping[str, Any],
) -> list[Path]:
    """``save`` with the fields of an ``ExportConfig`` as they come; without a format, the suffix says it.

    Raises:
        ValueError: also where an option is unknown, or the suffix belongs to no format or to several.
    """
    known = [field.name for field in fields(ExportConfig) if field.name != "metres_per_unit"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"expected options out of {', '.join(known)}, got {', '.join(unknown)}")
    chosen = dict(options)
    if chosen.get("frames") is not None:
        chosen["frames"] = tuple(int(frame) for frame in chosen["frames"])
    name = format or format_of(Path(path))
    return save(reconstruction, path, name, ExportConfig(**chosen), overwrite=overwrite)


FILES_OF_OTHERS = frozenset({
    ".abc", ".avi", ".bag", ".blend", ".csv", ".dae", ".e57", ".fbx", ".gif", ".gltf", ".h5", ".hdr", ".html", ".jpeg",
    ".jpg", ".json", ".las", ".laz", ".mkv", ".mov", ".npy", ".obj", ".pcd", ".stl", ".tar", ".tif", ".tiff", ".webm",
    ".xyz", ".zip",
})  # fmt: skip
"""Suffixes that no format has and nobody gives to a folder: such a name asks for a file that will not be there."""


def format_of(path: Path) -> str:
    """The one format whose files end as ``path`` does.

    Raises:
        ValueError: none, or several do.
    """
    suffix = path.suffix.lower()
    owners = [name for name, one in FORMATS.items() if suffix in one.suffixes]
    if len(owners) != 1:
        which = f"{' and '.join(owners)} have that suffix" if owners else "no format has that suffix"
        raise ValueError(f"expected a format for {path}: {which}; choose out of {', '.join(FORMATS)}")
    return owners[0]


def _fitting(config: ExportConfig, path: Path, name: str, format: Format) -> ExportConfig:
    """The config with the axes that the format takes, after options and suffix were compared with the format.

    Raises:
        ValueError: they do not fit.
    """
    suffix = path.suffix.lower()
    owners = [other for other, one in FORMATS.items() if suffix in one.suffixes]
    if suffix not in format.suffixes and (owners or suffix in FILES_OF_OTHERS):
        wanted = f"a file {' or '.join(format.suffixes)} or a folder" if format.suffixes else "a folder"
        whose = f"suffix of {', '.join(owners)}" if owners else "which no format writes"
        raise ValueError(f"expected {wanted} for the format {name}, got {path} ({whose})")
    if config.up is not None and config.up not in format.ups:
        raise ValueError(
            f"expected up out of {', '.join(format.ups)} for the format {name}, got {config.up!r}; its axes are fixed"
        )
    if config.per_frame and (name != "glb" or not is_file(path, ".glb")):
        raise ValueError(
            f"expected a file x.glb with per_frame, got {name} at {path}; a folder has a file per frame"
        )
    if config.images == "source" and name not in ("colmap", "nerfstudio"):
        raise ValueError(f"expected the format colmap or nerfstudio with images of the source, got {name}")
    if config.alpha and name != "colmap":
        raise ValueError(
            f"expected the format colmap with alpha, got {name}; nerfstudio takes masks from files of their own"
        )
    return replace(config, up=config.up or format.ups[0])


def most_bytes(reconstruction: Reconstruction, format: Format, config: ExportConfig) -> int:
    """What an export of all frames takes on disk at most, roughly: for the message when there is no room."""
    height, width = reconstruction.size
    points = min(config.most_points, reconstruction.num_frames * min(config.points_per_frame, height * width))
    if config.images == "source" and reconstruction.open_source_rgb is not None:
        height, width = reconstruction.open_source_rgb().shape[1:3]
    per_frame = int(height * width * format.bytes_per_pixel) + 8192
    return reconstruction.num_frames * per_frame + int(format.bytes_per_point * points)
