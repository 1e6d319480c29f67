"""YUV4MPEG and GIF: whole pictures one after the other."""

from geo4d.video.damage.report import Damage, broken, early
from geo4d.video.mp4 import Bytes


def check_y4m(data: Bytes) -> Damage | None:
    """Damage of a Y4M file, by the frames' marks and the size that follows from its header."""
    position = data.find(b"\n") + 1
    words = {word[:1]: word[1:].decode("latin-1") for word in data[:position].split()[1:]}
    length = _y4m_bytes(int(words[b"W"]), int(words[b"H"]), words.get(b"C", "420"))
    while length and 0 < position < len(data):
        if data[position : position + 5] != b"FRAME":
            return Damage(broken(position), position)
        start = data.find(b"\n", position) + 1
        if start == 0 or start + length > len(data):
            return Damage(early(start + length - len(data)) if start else "the file ends early", position)
        position = start + length
    return None


def _y4m_bytes(width: int, height: int, colour: str) -> int:
    """Bytes of one picture; 0 for a layout that is not known here."""
    kind = colour.split("p")[0] if "p" in colour[3:] and colour[3:4] == "p" else colour
    depth = 2 if colour[3:4] == "p" and colour[4:].isdigit() and int(colour[4:]) > 8 else 1
    half = ((width + 1) // 2, (height + 1) // 2)
    chroma = {"420": half[0] * half[1], "422": half[0] * height, "444": width * height, "mono": 0}
    for name, samples in chroma.items():
        if kind == name or (name == "420" and kind in ("420jpeg", "420mpeg2", "420paldv")):
            return depth * (width * height + 2 * samples)
    return 0


def check_gif(data: Bytes) -> Damage | None:
    """Damage of a GIF file, by its blocks; None where it ends with its trailer."""

    def table(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    total = len(data)
    position = 13 + table(data[10])
    picture = position  # where the picture that is being read begins, with what stands before it
    while position < total:
        kind = data[position]
        if kind == 0x3B:
            return None
        if kind == 0x21:
            position += 2
        elif kind == 0x2C:
            position += 11 + table(data[position + 9])
        else:
            return Damage(broken(position), picture)
        while position < total and data[position]:
            position += data[position] + 1
        position += 1
        if kind == 0x2C and position <= total:
            picture = position
    return Damage("the file ends without its end mark", picture)
