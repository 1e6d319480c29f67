"""The format ``csv``: one line a frame with time, position and viewing direction of the camera.

What an export format of a package of its own looks like: a function that writes, a ``Format`` that describes it, and an
entry point of the group ``geo4d.exports`` in ``pyproject.toml`` that names the ``Format``.
"""

import csv
from pathlib import Path

import numpy as np

from geo4d.export import ExportConfig, Format, chosen_frames, conventions
from geo4d.types import Reconstruction


def save_csv(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """Write the camera path.

    Args:
        reconstruction: in the unit and axes that the user asked for; nothing is left to scale or turn.
        path: the file to write. It lies in a temporary folder: on an error nothing is left behind.
        config: what the user asked for.
    Returns:
        the files written.
    Raises:
        ValueError: no poses, or frames of several scenes (from ``chosen_frames``).
    """
    frames = chosen_frames(reconstruction, config, one_world=True)
    c2w = np.asarray(reconstruction.c2w, np.float64)
    with path.open("w", encoding="utf-8", newline="") as file:
        for name, meaning in conventions(reconstruction, config).items():
            file.write(f"# {name}: {meaning}\n")
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["time_s", "x", "y", "z", "forward_x", "forward_y", "forward_z"])
        for frame in frames:
            rows.writerow([float(reconstruction.times_s[frame]), *c2w[frame, :3, 3], *c2w[frame, :3, 2]])
    return [path]


CSV = Format(
    save_csv,
    "camera path: time, position, viewing direction",
    suffixes=(".csv",),
    file_name="path.csv",
)
