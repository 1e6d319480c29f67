import struct
import zlib

from geo4d.video.pictures import PictureFile
from tests.support.images import picture, save


def test_orientation_in_the_text_of_an_old_png(tmp_path):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 274, 3, 1, 6, 0) + b"\0\0\0\0"
    text = b"Raw profile type exif\0" + f"\nexif\n{len(exif):8d}\n{exif.hex()}\n".encode()
    plain = save(tmp_path / "a.png", picture()).read_bytes()
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
    (tmp_path / "b.png").write_bytes(plain[:33] + chunk + plain[33:])
    assert PictureFile(tmp_path / "b.png").pages[0].size == (40, 24)
