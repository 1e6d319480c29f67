"""Contact sheets of a folder of clips: frame, depth and confidence side by side, and numbers to go with the look.

    python benchmarks/contact_sheet.py CLIPS -o OUT [--columns 6] [--max-frames 48] [--format jpg] [--json FILE]

CLIPS is a folder (searched in all subfolders) or one clip: video files and folders of numbered frames. Every clip is
reconstructed by the whole pipeline and gets one picture in OUT. The numbers say what a look at the sheet checks: is the
bottom of the picture nearer than the top, how much counts as sky, how steady is the depth of the whole from frame to
frame.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

VIDEO = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif"}
PICTURE = {".png", ".jpg", ".jpeg"}
WIDTH = 240


def find_clips(folder: Path) -> list[Path]:
    """Video files and folders with at least two pictures, in order of their names."""
    if folder.is_file():
        return [folder]
    clips = [path for path in folder.rglob("*") if path.suffix.lower() in VIDEO]
    for path in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        if sum(child.suffix.lower() in PICTURE for child in path.iterdir()) >= 2:
            clips.append(path)
    return sorted(clips)


def colour(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Disparity to colours (BGR); what is not finite is grey."""
    scaled = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    picture = cv2.applyColorMap((np.nan_to_num(scaled) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    picture[~np.isfinite(values)] = 90
    return picture


def sheet(result: Any, columns: int) -> np.ndarray:
    """Three rows: frame, depth (near is red), confidence (white is sure)."""
    chosen = np.linspace(0, result.num_frames - 1, min(columns, result.num_frames)).round().astype(int)
    disparity = [np.asarray(result.disparity[int(t)], np.float32) for t in chosen]
    finite = np.concatenate([d[np.isfinite(d)] for d in disparity])
    low, high = np.quantile(finite, [0.01, 0.98]) if finite.size else (0.0, 1.0)
    height = round(WIDTH * result.size[0] / result.size[1])
    rows: list[list[np.ndarray]] = [[], [], []]
    for t, values in zip(chosen, disparity, strict=True):
        rgb = np.asarray(result.rgb[int(t)])
        rows[0].append((rgb[..., ::-1] * 255).astype(np.uint8))
        rows[1].append(colour(values, low, high))
        confidence = (np.clip(np.asarray(result.confidence[int(t)], np.float32), 0, 1) * 255).astype(np.uint8)
        rows[2].append(cv2.cvtColor(confidence, cv2.COLOR_GRAY2BGR))
    resize = lambda p: cv2.resize(p, (WIDTH, height), interpolation=cv2.INTER_AREA)  # noqa: E731
    return np.vstack([np.hstack([resize(picture) for picture in row]) for row in rows])


def numbers(result: Any) -> dict[str, float]:
    """See the top of the file."""
    bottom, top, sky, medians = [], [], [], []
    for t in range(0, result.num_frames, max(1, result.num_frames // 12)):
        disparity = np.asarray(result.disparity[t], np.float32)
        quarter = disparity.shape[0] // 4
        top.append(np.nanmedian(disparity[:quarter]))
        bottom.append(np.nanmedian(disparity[-quarter:]))
        sky.append(float(np.mean(disparity == 0)))
        medians.append(np.nanmedian(disparity))
    steady = np.abs(np.diff(np.log(np.maximum(medians, 1e-9)))).mean() if len(medians) > 1 else 0.0
    c2w = result.c2w
    turn = 0.0
    if c2w is not None:
        relative = c2w[0][:3, :3].T @ c2w[-1][:3, :3]
        turn = float(np.degrees(np.arccos(np.clip((np.trace(relative) - 1) / 2, -1, 1))))
    return {
        # Sky at the top has no disparity: the ratio stops at 999.
        "bottom over top disparity": round(min(float(np.mean(bottom) / max(np.mean(top), 1e-9)), 999.0), 3),
        "bottom nearer": round(float(np.mean(np.array(bottom) > np.array(top))), 3),
        "sky share": round(float(np.mean(sky)), 4),
        "median step": round(float(steady), 4),
        "camera turn, degrees": round(turn, 2),
    }


def main() -> None:
    import geo4d

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--max-frames", type=int, default=48)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--format", choices=("png", "jpg"), default="png")
    parser.add_argument("--quality", type=int, default=80, help="of jpg")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    options.output.mkdir(parents=True, exist_ok=True)
    results = {}
    for clip in find_clips(options.clips):
        name = "-".join(clip.relative_to(options.clips).parts) if clip != options.clips else clip.name
        started = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        clock = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="contact-sheet-") as folder:
            result = geo4d.reconstruct(
                clip,
                Path(folder) / "result",
                model=options.model,
                stop=options.max_frames,
                output_size="model",
            )
            used = resource.getrusage(resource.RUSAGE_SELF).ru_utime - started
            picture, quality = sheet(result, options.columns), [cv2.IMWRITE_JPEG_QUALITY, options.quality]
            cv2.imwrite(str(options.output / f"{name}.{options.format}"), picture, quality)
            results[name] = {
                "frames": result.num_frames,
                **numbers(result),
                "cpu_s": round(used, 1),
                "wall_s": round(time.monotonic() - clock, 1),
            }
        print(name, json.dumps(results[name]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
