"""Packs real clips and photographs for ``bundled_train.py``: JPEG files of a short side of 224, in one file.

    python benchmarks/bundled_pictures.py FOLDER -o pictures.pt --cache FOLDER [--segments 2]

FOLDER holds ``clips/*.mp4`` and ``photos/*.jpg`` and, beside them, ``list.json`` with source and licence of each.
Of every clip it takes segments of sixteen frames, and the depth that a default run finds for them by motion alone.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional as F
from vouched import windows_of

from geo4d.evaluation.control import usable_evidence
from geo4d.video.io import Video

SHORT_SIDE = 224
LENGTH = 16
"""Frames of a segment: one window."""
SURE = 0.5
"""Confidence from which depth from motion teaches."""


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


def depth_from_motion(frames: np.ndarray) -> dict[str, torch.Tensor]:
    """Disparity and confidence of a run's evidence about the frames, small; nothing where there is none."""
    for window, evidence, _ in windows_of(frames, {"split_shots": False}):
        if evidence is None or window.num_frames != len(frames):
            return {}
        used, depth = usable_evidence(evidence)
        confidence = torch.ones_like(depth) if evidence.confidence is None else evidence.confidence.float()
        confidence = torch.where(used, confidence, 0.0)
        if float((confidence > SURE).float().mean()) < 0.1:
            return {}
        unit = depth[confidence > SURE].median()
        maps = torch.stack([torch.where(used, unit / depth, 0.0).clamp(max=100), confidence])
        small = F.interpolate(maps, (depth.shape[1] // 2, depth.shape[2] // 2), mode="nearest-exact")
        return {"disparity": small[0].half(), "confidence": small[1].half()}
    return {}


def segments(num_frames: int, length: int, most: int) -> list[np.ndarray]:
    """Stretches of a clip, spread over it, of every second frame where there are enough."""
    step = max(1, min(3, num_frames // length))
    span = (length - 1) * step + 1
    if num_frames < span:
        return [np.arange(num_frames)]
    count = min(most, max(1, num_frames // span))
    starts = np.unique(np.linspace(0, num_frames - span, count).round().astype(int))
    return [start + step * np.arange(length) for start in starts]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--segments", type=int, default=2, help="of a clip")
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder of finished segments: a later call goes on"
    )
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    packed: list[dict[str, Any]] = []
    listed = {item["name"] for item in json.loads((options.folder / "list.json").read_text())}
    for path in sorted(options.folder.glob("clips/*.mp4")):
        if path.stem not in listed:
            print(f"{path.name} is not in list.json: left out")
            continue
        with Video(path) as video:
            for number, chosen in enumerate(segments(video.num_frames, LENGTH, options.segments)):
                cached = options.cache / f"{path.stem}_{number}.pt"
                if not cached.exists():
                    frames = _bytes(video.read([int(t) for t in chosen]))
                    segment = {
                        "jpegs": [jpeg(shrunk(frame)) for frame in frames],
                        **depth_from_motion(frames),
                    }
                    torch.save(segment, cached)
                packed.append(_small(torch.load(cached, weights_only=True)))
                print(cached.stem, "with depth" if "depth" in packed[-1] else "", flush=True)
    for path in sorted(options.folder.glob("photos/*.jpg")):
        packed.append({"jpegs": [jpeg(shrunk(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]))]})
    torch.save(packed, options.output)
    digest = hashlib.sha256(options.output.read_bytes()).hexdigest()
    counts = {
        "items": len(packed),
        "with_depth": sum("depth" in item for item in packed),
        "pictures": sum(len(item["jpegs"]) for item in packed),
        "bytes": options.output.stat().st_size,
        "sha256": digest,
    }
    print(json.dumps(counts))


def _small(segment: dict[str, Any]) -> dict[str, Any]:
    """Depth in one byte: 0 where motion is not sure, else the logarithm of the disparity from -4 to 4."""
    if "disparity" not in segment:
        return segment
    disparity, confidence = segment["disparity"].float(), segment["confidence"].float()
    code = 1 + ((disparity.clamp(min=1e-4).log().clamp(-4, 4) + 4) / 8 * 254).round()
    return {"jpegs": segment["jpegs"], "depth": torch.where(confidence > SURE, code, 0.0).byte()}


def _bytes(frames: object) -> np.ndarray:
    values = np.asarray(frames)
    return values if values.dtype == np.uint8 else np.round(values * 255).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
