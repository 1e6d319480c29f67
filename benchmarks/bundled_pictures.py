"""Packs real clips and photographs for ``bundled_train.py``: JPEG files of a short side of 224, in one file.

    python benchmarks/bundled_pictures.py FOLDER -o pictures.pt [--frames 20] [--megabytes 20]

FOLDER holds ``clips/*.mp4`` and ``photos/*.jpg`` and, beside them, ``list.json`` with source and licence of each.
"""

import argparse
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from geo4d.video.io import Video

SHORT_SIDE = 224


def shrunk(picture: np.ndarray) -> np.ndarray:
    """A picture with the short side at ``SHORT_SIDE``, RGB."""
    scale = SHORT_SIDE / min(picture.shape[:2])
    if scale >= 1:
        return picture
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def jpeg(picture: np.ndarray) -> torch.Tensor:
    """Bytes of a JPEG file."""
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return torch.from_numpy(data.reshape(-1).copy())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=20, help="of a clip")
    options = parser.parse_args()
    packed: list[list[torch.Tensor]] = []
    num_bytes = num_frames = 0
    for path in sorted(options.folder.glob("clips/*.mp4")):
        video = Video(path)
        chosen = np.unique(np.linspace(0, video.num_frames - 1, min(options.frames, video.num_frames)).round())
        frames = video.read([int(t) for t in chosen])
        clip = [jpeg(shrunk(np.asarray(frame))) for frame in _bytes(frames)]
        packed.append(clip)
    for path in sorted(options.folder.glob("photos/*.jpg")):
        packed.append([jpeg(shrunk(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]))])
    num_frames = sum(len(clip) for clip in packed)
    num_bytes = sum(len(data) for clip in packed for data in clip)
    torch.save(packed, options.output)
    digest = hashlib.sha256(options.output.read_bytes()).hexdigest()
    print(json.dumps({"clips": len(packed), "frames": num_frames, "bytes": num_bytes, "sha256": digest}))


def _bytes(frames: object) -> np.ndarray:
    values = np.asarray(frames)
    return values if values.dtype == np.uint8 else np.round(values * 255).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
