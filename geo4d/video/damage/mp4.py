"""MP4 and QuickTime: the index against the bytes that are there."""

from geo4d.video.damage.report import Damage, broken, early
from geo4d.video.mp4 import Bytes, atoms, bytes_of_fragment, index_fault


def check_mp4(data: Bytes) -> Damage | None:
    """Damage of an MP4 or QuickTime file, by its atoms and index; None where they agree with the file."""
    end = last = 0
    listed: int | None = None
    index: Damage | None = None
    fragments = False
    for kind, start, stop in atoms(data, 0, len(data)):
        end = stop
        if kind == b"moof" and stop <= len(data):
            fragments, last = True, start
            listed = bytes_of_fragment(data, start + 8, stop)
            if listed is None:
                return Damage(f"the index of the fragment at byte {start} is damaged", start)
        elif kind == b"mdat" and fragments and stop <= len(data):
            if listed is not None and 0 <= listed < stop - start - 16:
                return Damage(f"the index of the fragment at byte {last} is damaged", last)
            listed = None
        elif kind == b"moov" and (fault := index_fault(data, start + 8, min(stop, len(data)))) is not None:
            index = Damage(fault)
    if end > len(data):
        return Damage(early(end - len(data)))
    if index is not None:
        return index
    if fragments and end < len(data) and any(data[end : end + 4096]):
        return Damage(broken(end), last)
    return None
