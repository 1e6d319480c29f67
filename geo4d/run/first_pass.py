"""What is taken from the frames on the way, so that a video is decoded three times at most.

1. Opening a file decodes it anyway, to learn how many frames are readable: shots and looks come from there.
2. The pass that tracks points also keeps, on disk, the small pictures that flow, sweep and predictor ask for.
3. Writing reads the frames at their full size.

The plan of a run needs the shots and is shown before the work starts; so tracks are not made while the file is opened.
"""

import math
from collections.abc import Callable

from geo4d.config import RunConfig
from geo4d.evidence.moving import FLOW_SIZE
from geo4d.video.first_look import LOOK_SIZE, FirstLook
from geo4d.video.io import Video, fit_size

SWEEP_PIXELS = 128 * 213
"""Of the pictures that are swept; what is half as large as these is searched."""


def first_look(config: RunConfig) -> FirstLook | None:
    """What is to be seen while the video is opened; None where a run asks for nothing of it."""
    looks = "loops" in config.wide_windows
    return FirstLook(looks=looks) if looks or config.split_shots else None


def list_shots(
    clip: Video,
    config: RunConfig,
    progress: Callable[[str, int, int], None],
    look: FirstLook | None = None,
) -> list[tuple[int, int]]:
    """[start, end) of every shot; reads the clip only where its frames were not seen when it was opened."""
    whole = [(0, clip.num_frames)]
    if look is None:
        return whole
    if (
        look.finder.count != clip.num_frames
    ):  # pictures, arrays, interlaced films; damage that opening had to step around
        look.forget()
        for t, frame in enumerate(clip.frames(fit_size(clip.size, LOOK_SIZE))):
            look.add(frame)
            progress("find shots", t + 1, clip.num_frames)
    else:
        progress("find shots", clip.num_frames, clip.num_frames)
    return look.finder.shots() if config.split_shots else whole


def sweep_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the pictures that are swept for maps of a size."""
    scale = math.sqrt(SWEEP_PIXELS / (size[0] * size[1]))
    return round(scale * size[0]), round(scale * size[1])


def kept_sizes(clip_size: tuple[int, int], model_size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Sizes of the pictures that a run with evidence from motion asks for after its points are tracked."""
    return tuple(dict.fromkeys((fit_size(clip_size, FLOW_SIZE), model_size, sweep_size(model_size))))
