"""Folders, patterns, lists, tars and prefixes of stores as clips. What cannot be a clip is named."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from geo4d.batch.clips import Clip, make_name
from geo4d.batch.ledger import BATCH, IDENTITY
from geo4d.batch.stores import find_objects, iter_members, store_info
from geo4d.errors import InputError
from geo4d.formats.objects import is_url
from geo4d.results.manifest import MANIFEST, is_result
from geo4d.video.pictures import IMAGE_SUFFIXES
from geo4d.video.sniff import VIDEO_SUFFIXES

NO_VIDEO = "its name is not that of a video; name the file itself to take it all the same"

PACKED = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
NO_PLAIN_TAR = "a packed tar, whose members cannot be read one by one; unpack it to a plain .tar"


@dataclass
class Found:
    """What sources hold.

    Attributes:
        clips: by name, in the order of the sources.
        left_out: (path or URL, why it is no clip).
    """

    clips: dict[str, Clip] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def add(self, clip: Clip) -> None:
        """
        Raises:
            InputError: two sources get one name.
        """
        known = self.clips.get(clip.name)
        if known is not None and known.source != clip.source:
            raise InputError(
                f"{clip.source} and {known.source} get the same name {clip.name}; rename one of them"
            )
        if known is None:
            self.clips[clip.name] = clip

    def leave(self, place: str, why: str) -> None:
        """Note what is no clip."""
        self.left_out.append((place, why))

    def lines(self, most: int = 5) -> list[str]:
        """For people: how much was left out, a line for each reason, with the first places."""
        count = Counter(why for _, why in self.left_out)
        lines = []
        for why, number in count.most_common():
            places = [place for place, reason in self.left_out if reason == why][:most]
            more = f" and {number - most} more" if number > most else ""
            lines.append(f"no clip: {', '.join(places)}{more}: {why}")
        return lines


def find_clips(sources: Sequence[str]) -> Found:
    """All clips of the sources, each once.

    Args:
        sources: folders, video files, quoted patterns, lists (``.txt``), tars, URLs of objects or prefixes.
    Raises:
        InputError: a source is not there, holds no clip, or is a list or a tar that cannot be read.
        MissingExtraError: a URL, without the package for its store.
    """
    found = Found()
    for source in sources:
        before = len(found.clips) + len(found.left_out)
        if source.lower().endswith(".txt") and not is_url(source):
            for line in _lines(Path(source)):
                _expand(line, found, listed=True)
        else:
            _expand(source, found, listed=False)
        if len(found.clips) + len(found.left_out) == before and not _known(source, found):
            raise InputError(f"{source} holds no video and no folder of pictures; check the path")
    if not found.clips:
        raise InputError("\n".join(["expected at least one clip, found none", *found.lines()]))
    return found


def _known(source: str, found: Found) -> bool:
    """Whether all that a source holds had been found in another one before."""
    trial = Found()
    if source.lower().endswith(".txt"):
        return bool(_lines(Path(source)))
    _expand(source, trial, listed=False)
    return bool(trial.clips) and trial.clips.keys() <= found.clips.keys()


def _lines(path: Path) -> list[str]:
    """The places that a list names; relative ones are relative to the list."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"expected a list of clips at {path}: {error.strerror}") from error
    places = [line.strip() for line in text.splitlines()]
    places = [place for place in places if place and not place.startswith("#")]
    return [place if is_url(place) else str(path.parent / place) for place in places]


def _expand(source: str, found: Found, *, listed: bool) -> None:
    """Add the clips of one source.

    Args:
        listed: a line of a list; a file that is missing becomes a clip that fails, so that the table names it.
    """
    if is_url(source):
        _add_remote(source, found)
    elif os.path.isdir(source):
        _walk(Path(os.path.abspath(source)), found)
    elif os.path.isfile(source):
        _add_file(Path(os.path.abspath(source)), found)
    elif glob.has_magic(source):
        places = sorted(glob.glob(source, recursive=True))
        if not places:
            raise InputError(f"no file or folder fits the pattern {source}; check it")
        for place in places:
            _expand(place, found, listed=False)
    elif listed:
        place = os.path.abspath(source)
        found.add(Clip(make_name(place), "path", place))
    else:
        raise InputError(f"expected a file, folder, pattern, list or URL, found nothing at {source}")


def _add_file(path: Path, found: Found) -> None:
    if path.suffix.lower() == ".tar":
        _add_members(str(path), _stamp(path), found)
    elif path.name.lower().endswith(PACKED):
        found.leave(str(path), NO_PLAIN_TAR)
    else:
        found.add(Clip(make_name(str(path)), "path", str(path), stamp=_stamp(path)))


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _add_members(location: str, stamp: tuple[str | int, ...], found: Found) -> None:
    """The videos of a tar, one clip each; other members are left out by their suffix."""
    seen: Counter[str] = Counter()
    for member in iter_members(location):
        if PurePosixPath(member.name).suffix.lower() not in VIDEO_SUFFIXES:
            found.leave(f"{location}|{member.name}", "a member of a tar whose name is not that of a video")
            continue
        if not member.plain:
            found.leave(f"{location}|{member.name}", "a member of a tar that is no plain file")
            continue
        seen[member.name] += 1
        name = member.name if seen[member.name] == 1 else f"{member.name}#{seen[member.name]}"
        found.add(
            Clip(
                make_name(location, name),
                "tar",
                location,
                member=name,
                offset=member.offset,
                size=member.size,
                stamp=(*stamp, member.offset, member.size),
            )
        )


def _add_remote(url: str, found: Found) -> None:
    for place, info in find_objects(url):
        suffix = PurePosixPath(place).suffix.lower()
        size, stamp = store_info(info)
        if suffix == ".tar":
            _add_members(place, stamp, found)
        elif suffix in VIDEO_SUFFIXES or place == url:
            found.add(Clip(make_name(place), "remote", place, size=size, stamp=stamp))
        elif suffix in IMAGE_SUFFIXES:
            found.leave(place, "pictures in a store are not read; copy their folder, or pack a video")
        else:
            found.leave(place, NO_VIDEO)


def _walk(folder: Path, found: Found, above: frozenset[str] = frozenset()) -> None:
    """Videos in a folder and below; a folder of pictures without a video is one clip, and so is one of a data set."""
    real = os.path.realpath(folder)
    if real in above:
        found.leave(str(folder), "a link to a folder that it lies in")
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        found.leave(str(folder), f"a folder that cannot be read ({error.strerror})")
        return
    if (folder / BATCH / IDENTITY).is_file():
        found.leave(str(folder), "the output of a batch")
        return
    if (folder / MANIFEST).is_file() and is_result(folder):
        found.leave(str(folder), "a result of geo4d")
        return
    if _is_recording(folder, entries):
        found.add(Clip(make_name(str(folder)), "path", str(folder), stamp=_folder_stamp(entries)))
        return
    files = [entry for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]
    pictures = [entry for entry in files if _suffix(entry) in IMAGE_SUFFIXES]
    videos = [entry for entry in files if _suffix(entry) in VIDEO_SUFFIXES or _suffix(entry) == ".tar"]
    for entry in files:
        if entry in videos:
            _take_found(entry, found)
        elif entry not in pictures:
            found.leave(entry.path, NO_PLAIN_TAR if entry.name.lower().endswith(PACKED) else NO_VIDEO)
    if pictures and not videos:
        found.add(Clip(make_name(str(folder)), "path", str(folder), stamp=_folder_stamp(pictures)))
    elif pictures:
        found.leave(
            str(folder), f"{len(pictures)} pictures beside videos; put them into a folder of their own"
        )
    for entry in entries:
        if entry.name.startswith("."):
            found.leave(entry.path, "hidden")
        elif entry.is_dir():
            _walk(Path(entry.path), found, above | {real})


def _take_found(entry: os.DirEntry[str], found: Found) -> None:
    if entry.is_file():
        _add_file(Path(entry.path), found)
    else:
        found.leave(entry.path, "no file: a dangling link, a pipe or a device")


def _suffix(entry: os.DirEntry[str]) -> str:
    return os.path.splitext(entry.name)[1].lower()


def _is_recording(folder: Path, entries: Sequence[os.DirEntry[str]]) -> bool:
    """Whether this is the folder of a sequence of a known data set; then its folders are no clips of their own."""
    if not any(entry.is_dir() or _suffix(entry) in IMAGE_SUFFIXES for entry in entries):
        return False  # no pictures, here or below: readers, which load torch, need not be asked
    from geo4d.datasets.recordings import find_recording

    try:
        recording = find_recording(folder)
    except InputError:  # several sequences: each is found below
        return False
    return recording is not None


def _folder_stamp(entries: Sequence[os.DirEntry[str]]) -> tuple[int, ...]:
    """How many files, their bytes, and the latest time of change; a broken one counts as empty."""
    known = list(_statuses(entries))
    return len(entries), sum(s.st_size for s in known), max((s.st_mtime_ns for s in known), default=0)


def _statuses(entries: Sequence[os.DirEntry[str]]) -> Iterator[os.stat_result]:
    for entry in entries:
        try:
            yield entry.stat()
        except OSError:
            continue
