"""A data set's folder as plain footage: its pictures in order, their times and their camera, without any ground truth.

This is what ``geo4d reconstruct`` takes from a folder that a reader knows; a missing or partial truth does not matter.
"""

import os
from pathlib import Path

from geo4d.datasets.base import Recording
from geo4d.datasets.catalogue import load_reader
from geo4d.datasets.pieces import IMAGE_SUFFIXES
from geo4d.errors import InputError

RECORDINGS = ("bonn", "tum", "7scenes", "euroc", "kitti-odometry", "kitti")
"""Readers whose folders are recognised, specific layouts first."""

_LEVELS_UP = 3
"""How far above the pictures the root of a sequence may lie (``mav0/cam0/data``)."""


def find_recording(folder: Path) -> Recording | None:
    """The recording that a folder is, or that its pictures belong to; None for any other folder.

    Args:
        folder: of one sequence, or of the pictures of one of its cameras.
    Raises:
        InputError: the folder holds several sequences and no pictures of its own, or what describes one is damaged.
    """
    if not folder.is_dir():
        return None
    folder = Path(os.path.abspath(folder))
    readers = [load_reader(name) for name in RECORDINGS]
    for root in (folder, *folder.parents[:_LEVELS_UP]):
        for reader in readers:
            try:
                recording = None if reader.record is None else reader.record(root, folder)
            except (InputError, PermissionError):
                if root == folder and os.access(folder, os.R_OK | os.X_OK):
                    raise
                continue  # what lies above the pictures need not be theirs
            if recording is not None and all(file.is_relative_to(folder) for file in recording.files):
                return recording
    if not os.access(folder, os.R_OK | os.X_OK):
        return None
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir()):
        return None
    for reader in readers:
        sequences = reader.find(folder)
        if sequences:
            raise InputError(
                f"{folder} holds {len(sequences)} {reader.title} sequences ({', '.join(list(sequences)[:4])}"
                f"{', ..' if len(sequences) > 4 else ''}); name the folder of one of them"
            )
    return None


def picture_names(recording: Recording, folder: Path) -> list[str]:
    """The pictures as paths relative to the folder that was named."""
    folder = Path(os.path.abspath(folder))
    return [file.relative_to(folder).as_posix() for file in recording.files]
