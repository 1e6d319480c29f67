"""The picture of the README from a result of the example clip: frames, depth, what moves; the viewer on the right.

    python benchmarks/example_picture.py RESULT -o docs/images/example.jpg

Needs playwright and Chromium. Look at it before it is committed.
"""

import argparse
import shutil
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import sync_playwright

import geo4d
from geo4d.viewer.viser_view import ViewConfig, Viewer

TILE = (120, 200)
GAP = 2


def tile(picture: np.ndarray) -> np.ndarray:
    """A picture in [0, 255], RGB, at the size of a tile with a white edge."""
    small = cv2.resize(picture.astype(np.uint8), TILE[::-1], interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def coloured(values: np.ndarray, low: float, high: float, colours: int) -> np.ndarray:
    """Numbers as colours."""
    share = ((values - low) / (high - low)).clip(0, 1)
    return cv2.applyColorMap((share * 255).astype(np.uint8), colours)[..., ::-1]


def grid(result: geo4d.Reconstruction) -> np.ndarray:
    """Three frames, their depth (logarithm, near is red) and how likely each pixel moves."""
    chosen = [result.num_frames // 8, result.num_frames // 2, result.num_frames - 2]
    near = [-np.log(np.where(np.isfinite(result.depth[t]), result.depth[t], 1e6)) for t in chosen]
    low, high = np.quantile(near, 0.02), np.quantile(near, 0.98)
    rows = [
        [
            tile(255 * np.asarray(result.rgb[t], float) if result.rgb.dtype != np.uint8 else result.rgb[t])
            for t in chosen
        ],
        [tile(coloured(values, low, high, cv2.COLORMAP_TURBO)) for values in near],
        [tile(coloured(np.asarray(result.dynamic[t], float), 0, 1, cv2.COLORMAP_VIRIDIS)) for t in chosen],
    ]
    return np.concatenate([np.concatenate(row, 1) for row in rows])


def view(path: Path, shot: Path) -> np.ndarray:
    """What the viewer shows of the points, without its panel."""
    result = geo4d.load(path)
    with Viewer(result, ViewConfig()) as viewer, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        page = browser.new_page(viewport={"width": 1100, "height": 700})
        page.goto(viewer.url)
        page.wait_for_selector("canvas", timeout=30_000)
        page.get_by_role("button").first.click()  # the note about software rendering
        page.mouse.move(400, 350)
        for _ in range(4):
            page.mouse.wheel(0, -240)
            page.wait_for_timeout(500)
        page.wait_for_timeout(15_000)
        page.screenshot(path=str(shot))
        browser.close()
    return cv2.imread(str(shot))[:, :755, ::-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    left = grid(geo4d.load(options.result))
    shot = options.output.with_suffix(".png")
    right = view(options.result, shot)
    shot.unlink()
    right = cv2.resize(right, (round(right.shape[1] * left.shape[0] / right.shape[0]), left.shape[0]))
    whole = np.concatenate([left, right], 1)
    cv2.imwrite(str(options.output), whole[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
