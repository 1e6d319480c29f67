"""Preview movie: picture, depth and confidence side by side."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from geo4d.export.common import chosen_frames
from geo4d.export.config import ExportConfig
from geo4d.types import Reconstruction


def save_preview(reconstruction: Reconstruction, path: Path, config: ExportConfig) -> list[Path]:
    """Side-by-side mp4 (VP9 or AV1): picture, depth, confidence, every frame at its time in the source."""
    from geo4d.formats.movies import save_movie
    from geo4d.formats.ramps import confidence_to_colours, depth_to_colours, disparity_range, to_uint8

    frames = chosen_frames(reconstruction, config)
    sample = [np.asarray(reconstruction.depth[f])[::4, ::4] for f in frames[:: max(1, len(frames) // 16)]]
    limits = disparity_range(np.stack(sample).astype(np.float32))

    def pictures() -> Iterator[np.ndarray]:
        for frame in frames:
            panels = (
                []
                if reconstruction.rgb is None
                else [to_uint8(np.asarray(reconstruction.rgb[frame], np.float32))]
            )
            panels.append(depth_to_colours(np.asarray(reconstruction.depth[frame], np.float32), limits))
            panels.append(confidence_to_colours(np.asarray(reconstruction.confidence[frame], np.float32)))
            yield np.concatenate(panels, axis=0 if reconstruction.size[1] > 2 * reconstruction.size[0] else 1)

    save_movie(path, pictures(), times_s=np.asarray(reconstruction.times_s, np.float64)[frames])
    return [path]
