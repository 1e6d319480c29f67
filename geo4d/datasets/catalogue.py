"""Every reader by name, and what finds the right one for a folder."""

from importlib import import_module
from pathlib import Path

from geo4d.datasets.base import Reader, Sequence, missing
from geo4d.errors import InputError
from geo4d.plugins import entry

_READERS = "geo4d.datasets.readers."
READERS: dict[str, tuple[str, str]] = {
    "urbansyn": (_READERS + "urbansyn", "READER"),  # has rgb/ and depth/, as "folder" has
    "folder": (_READERS + "synthetic", "READER"),
    "tartanair": (_READERS + "tartanair", "READER"),
    "hololens": (_READERS + "hololens", "READER"),
    "iclnuim": (_READERS + "iclnuim", "READER"),
    "bonn": (_READERS + "bonn", "READER"),
    "tum": (_READERS + "tum", "READER"),
    "sintel": (_READERS + "sintel", "FINAL"),
    "sintel-clean": (_READERS + "sintel", "CLEAN"),
    "kitti": (_READERS + "kitti", "DEPTH"),
    "kitti-odometry": (_READERS + "kitti", "ODOMETRY"),
    "7scenes": (_READERS + "seven_scenes", "READER"),
    "scannet": (_READERS + "scannet", "READER"),
    "gmu-kitchens": (_READERS + "gmu_kitchens", "READER"),
    "ddad": (_READERS + "ddad", "READER"),
    "monkaa": (_READERS + "monkaa", "READER"),
    "diode": (_READERS + "diode", "READER"),
    "euroc": (_READERS + "euroc", "READER"),
    "pavilion": (_READERS + "pavilion", "READER"),
    "spring": (_READERS + "spring", "READER"),
    "bedlam": (_READERS + "bedlam", "READER"),
    "pointodyssey": (_READERS + "pointodyssey", "READER"),
    "vkitti": (_READERS + "vkitti", "VERSION_1"),
    "vkitti2": (_READERS + "vkitti", "VERSION_2"),
    "kenburns": (_READERS + "kenburns", "READER"),
    "dynamic-replica": (_READERS + "dynamic_replica", "READER"),
    "gta-sfm": (_READERS + "gta_sfm", "READER"),
    "hypersim": (_READERS + "hypersim", "READER"),
    "irs": (_READERS + "irs", "READER"),
    "matrixcity": (_READERS + "matrixcity", "READER"),
    "midair": (_READERS + "midair", "READER"),
    "mvs-synth": (_READERS + "mvs_synth", "READER"),
    "structured3d": (_READERS + "structured3d", "READER"),
    "synthia": (_READERS + "synthia", "READER"),
    "nerfstudio": (_READERS + "nerfstudio", "READER"),
    "colmap": (_READERS + "colmap", "READER"),
    "result": (_READERS + "result", "READER"),
}
"""Reader name -> (module, name in it). The order is that of automatic detection: specific layouts first."""


def reader_names() -> list[str]:
    """Names of all readers, those of installed packages behind ours; none is loaded."""
    return [*READERS, *entry.plugin_points(entry.READERS, "a reader", READERS)]


def load_reader(name: str) -> Reader:
    """The reader of that name.

    Raises:
        ValueError: unknown name.
        PluginError: it belongs to a package whose code cannot be used.
    """
    if name not in READERS:
        points = entry.plugin_points(entry.READERS, "a reader", READERS)
        if name not in points:
            raise ValueError(f"expected one of {', '.join(reader_names())} as the dataset, got {name!r}")
        foreign: Reader = entry.load_point(points[name], "the reader", Reader, "a geo4d.datasets.base.Reader")
        return foreign
    module, attribute = READERS[name]
    reader: Reader = getattr(import_module(module), attribute)
    return reader


def find_sequences(reader: Reader, root: Path | str) -> dict[str, Path]:
    """The sequences under ``root``, by name.

    Raises:
        InputError: there are none; the message says what is missing and where to get the dataset.
    """
    root = Path(root)
    found = reader.find(root) if root.is_dir() else {}
    if not found:
        kind = "the folder has another layout" if root.is_dir() else "there is no such folder"
        raise missing(reader, root, kind)
    return found


def recognise(root: Path | str, reader: str | None = None) -> tuple[Reader, dict[str, Path]]:
    """The reader of a folder's layout and the sequences in it.

    Args:
        reader: its name; None takes the first that finds sequences.
    Raises:
        InputError: no layout fits.
        ValueError: unknown name.
    """
    root = Path(root)
    if reader is not None:
        found = load_reader(reader)
        return found, find_sequences(found, root)
    if root.is_dir():
        for name in reader_names():
            candidate = load_reader(name)
            sequences = candidate.find(root)
            if sequences:
                return candidate, sequences
    raise InputError(
        f"expected a data set in a known layout in {root}, recognised none of {', '.join(reader_names())}; "
        "docs/datasets.md shows the layouts, --reader NAME says what is missing for one"
    )


def load_ground_truth(folder: Path | str, reader: str | None = None) -> Sequence:
    """The one sequence in a folder; its layout is recognised.

    Args:
        reader: name of the reader to use; None tries all of them.
    Raises:
        InputError: no layout fits, or the folder holds several sequences.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"expected a folder with ground truth at {folder}, found none; check the path")
    for name in [reader] if reader is not None else reader_names():
        candidate = load_reader(name)
        found = candidate.find(folder)
        if len(found) > 1:
            raise InputError(
                f"expected one {candidate.title} sequence in {folder}, found {len(found)} "
                f"({', '.join(list(found)[:4])}, ..); name the folder of one of them"
            )
        if found:
            sequence_name, path = next(iter(found.items()))
            return candidate.load(path, sequence_name)
    raise InputError(
        f"expected ground truth in a known layout in {folder}, recognised none of {', '.join(reader_names())}; "
        "docs/datasets.md shows the layouts, the simplest is rgb/, depth/, poses.txt and intrinsics.txt"
    )
