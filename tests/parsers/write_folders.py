"""Makes results of two clips and exports them for trainers of splats: ``cases.json`` says what lies where.

    python tests/parsers/write_folders.py FOLDER

The clips are the example, and a portrait made of it: turned, cropped so that the principal point is off the centre, and
enlarged, so that pictures are larger than maps. ``check_parsers.py`` reads the folder in an environment of its own; it
shares no code with this.
"""

import json
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np

from geo4d.formats.movies import save_movie

CLIP = Path(__file__).resolve().parents[2] / "examples" / "clip.mp4"
FOCAL, CENTRE = 303.412323, (160, 96)
"""In pixels of the clip, which is 320x192: ``examples/clip_truth/intrinsics.txt``."""
CUT, ENLARGED, NUM_FRAMES = 40, 2, 20
"""Of the portrait: rows taken from the top, size over that of the clip, frames."""


def geo4d(*arguments: str | Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "geo4d", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL
    )


def make_portrait(path: Path) -> list[str]:
    """Write the clip turned clockwise and cropped; returns its fx fy cx cy."""
    with av.open(str(CLIP)) as movie:
        fps = float(movie.streams.video[0].average_rate)
        frames = [frame.to_ndarray(format="rgb24") for frame in movie.decode(video=0)][:NUM_FRAMES]
    height = frames[0].shape[0]
    turned = [np.ascontiguousarray(np.rot90(frame, -1)[CUT:]) for frame in frames]
    save_movie(
        path,
        (cv2.resize(one, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC) for one in turned),
        fps,
    )
    pinhole = (FOCAL, FOCAL, height - CENTRE[1], CENTRE[0] - CUT)
    return [str(ENLARGED * value) for value in pinhole]


def main(folder: Path) -> None:
    portrait = folder / "portrait.mp4"
    pinhole = make_portrait(portrait)
    geo4d("reconstruct", CLIP, "-o", folder / "landscape")
    geo4d("reconstruct", portrait, "-o", folder / "portrait", "--max-size", "320", "--intrinsics", *pinhole)
    cases = []
    for name, images in (("landscape", "maps"), ("portrait", "source")):
        for format in ("nerfstudio", "colmap"):
            export = f"{name}_{format}"
            geo4d("export", folder / name, "--format", format, "--images", images, "-o", folder / export)
            cases.append({"export": export, "format": format, "result": name})
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
