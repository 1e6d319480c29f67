"""Pictures with a direction, and moving ones."""

import numpy as np
from PIL import Image


def picture(height=24, width=40, channels=3):
    """Different in every corner, so that any wrong turn or mirror shows."""
    y, x = np.mgrid[:height, :width]
    planes = [255 * x // (width - 1), 255 * y // (height - 1), np.full_like(x, 30) + 200 * (x + y < 12)]
    return np.stack([*planes, 255 - planes[0]][:channels], -1).astype(np.uint8)


def save(path, image, orientation=None, **options):
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    if path.suffix == ".tiff":
        options |= {"tiffinfo": {274: orientation}} if orientation is not None else {}
    elif orientation is not None:
        options["exif"] = exif
    Image.fromarray(image).save(path, **options)
    return path


def moving(count=6, alpha=False):
    frames = []
    for t in range(count):
        frame = picture(channels=4)
        frame[..., 3] = 255
        frame[4:12, 3 + 5 * t : 11 + 5 * t] = (250, 10 * t, 60, 255)
        if alpha:
            frame[14:20, 2 * t : 2 * t + 14, 3] = 90
        if alpha and t % 3 == 2:
            frame[:, 30:] = 0
        frames.append(frame)
    return frames
