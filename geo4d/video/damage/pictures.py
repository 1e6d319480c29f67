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
    """Damage of a GIF file, by its blocks; None where it ends with its trailer and no picture swallows others.

    Data come in sub-blocks that state their length, up to one of length 0. A wrong length leads into the next picture,
    and the chain may well find back into step behind it; but what was swallowed stands behind the end of the picture's
    own code.
    """
    total = len(data)
    position = 13 + _gif_table(data[10])
    picture = position  # where the picture that is being read begins, with what stands before it
    while position < total:
        kind = data[position]
        if kind == 0x3B:
            return None
        if kind not in (0x21, 0x2C):
            return Damage(broken(position), picture)
        head = position
        position += 2 if kind == 0x21 else 11 + _gif_table(data[position + 9])
        first, sizes = position, []
        while position < total and data[position]:
            sizes.append(data[position])
            position += data[position] + 1
        position += 1
        if kind == 0x2C and position <= total:
            # Writers fill every sub-block but the last; where one is short, the code itself tells.
            if min(sizes[:-1], default=255) < max(sizes, default=0) and _code_ends_early(
                data, head, first, sizes
            ):
                return Damage(f"the picture at byte {head} holds more than its pixels", picture)
            picture = position
    return Damage("the file ends without its end mark", picture)


def _gif_table(flags: int) -> int:
    """Bytes of the colour table behind a header with these flags."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _code_ends_early(data: Bytes, head: int, first: int, sizes: list[int]) -> bool:
    """Whether a picture of a GIF file is complete, or its code ends, before the last of its sub-blocks begins.

    Args:
        head: where the picture begins; its width and height stand 5 bytes on.
        first: where its sub-blocks begin; the byte before holds the bits of a pixel.
        sizes: bytes of the sub-blocks.
    """
    width, height = (int.from_bytes(data[head + at : head + at + 2], "little") for at in (5, 7))
    bits = data[first - 1]
    if not 1 <= bits <= 8:
        return False
    starts = (first + 1 + sum(sizes[:k]) + k for k in range(len(sizes)))
    code = b"".join(data[at : at + size] for at, size in zip(starts, sizes, strict=True))
    return _lzw_bytes(code, bits, width * height) <= len(code) - sizes[-1]


def _lzw_bytes(code: bytes, bits: int, pixels: int) -> int:
    """Bytes of an LZW code, as GIF has it, that so many pixels take: with its end mark if that follows at once.

    Only the lengths of the words are kept; what they spell does not matter.
    """
    clear, end = 1 << bits, (1 << bits) + 1
    words: list[int] = []
    width, held, count, before, position = bits + 1, 0, 0, 0, 0
    while True:
        while count < width:
            if position == len(code):
                return position
            held |= code[position] << count
            count, position = count + 8, position + 1
        word, held, count = held & (1 << width) - 1, held >> width, count - width
        if word == end or pixels <= 0:
            return position
        if word == clear:
            words, width, before = [], bits + 1, 0
            continue
        new = before + 1
        length = 1 if word < clear else words[word - end - 1] if word - end - 1 < len(words) else new
        if before and end + len(words) < 4095:
            words.append(new)
            if end + len(words) + 1 == 1 << width and width < 12:
                width += 1
        before, pixels = length, pixels - length
