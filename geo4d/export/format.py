"""What a format is: one function that writes, and what the rest needs to know of its files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from geo4d.export.config import ExportConfig, Up

if TYPE_CHECKING:
    from geo4d.types import Reconstruction

Writer: TypeAlias = Callable[["Reconstruction", Path, ExportConfig], list[Path]]
"""(reconstruction, path, config) -> files and folders written."""


@dataclass(frozen=True)
class Format:
    """One export format.

    Attributes:
        write: (reconstruction, path, config) -> files and folders written. The reconstruction is scaled and turned as
            ``config`` says, and ``config.up`` is one of ``ups``. ``path`` lies in a temporary folder whose
            contents appear together at the end; it has one of ``suffixes``, or names a folder to make.
        holds: what the files hold, in a line.
        suffixes: of the single file that the format can be; none for a folder with files of fixed names.
        file_name: for formats that are always one file: its name where a folder is asked for. That folder may hold
            other files. None for formats that have files of their own for a folder, which must be new.
        ups: axes of the world that the files can have; the first where the user names none.
        bytes_per_pixel: of disk space, at most, roughly.
        bytes_per_point: the same for every sampled point (``ExportConfig.points_per_frame``).
    """

    write: Writer
    holds: str
    suffixes: tuple[str, ...] = ()
    file_name: str | None = None
    ups: tuple[Up, ...] = ("camera", "y", "z")
    bytes_per_pixel: float = 0
    bytes_per_point: float = 0
