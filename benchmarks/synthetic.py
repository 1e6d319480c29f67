"""How fast are synthetic clips made? CPU seconds per clip of one process, set-up of the scene included.

``python benchmarks/synthetic.py [--clips N] [--output FILE]`` prints a table and writes it as JSON. Textures that
a clip is the first to use are drawn on the way; the table gives a warm bank (a long-running training process) and, in
the last row, what filling the whole bank costs once.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from geo4d.synthetic.predictions import TruthSource
from geo4d.synthetic.render import clip_seed, iter_clips, make_scene, render_clip
from geo4d.synthetic.scene import SCENE_KINDS, SceneConfig, SceneMix, sample_config
from geo4d.synthetic.textures import texture_bank

SIZES = (((64, 112), 8, 1), ((96, 160), 16, 1), ((96, 160), 16, 2), ((128, 224), 16, 1), ((144, 256), 24, 1))


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds (user + system) of ``work``."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(clips: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    start = time.perf_counter()
    next(iter_clips(0, (12, 20), 2))
    figures["first clip of the process, wall s"] = time.perf_counter() - start
    bank = texture_bank("train")
    figures["fill the training bank, CPU s"] = seconds(lambda: bank.ensure(np.arange(bank.size)))
    for size, frames, supersample in SIZES:
        name = f"{frames} frames {size[0]}x{size[1]}, {supersample}x{supersample} rays: CPU s per clip"

        def draw(size: tuple[int, int] = size, frames: int = frames, supersample: int = supersample) -> None:
            for _ in iter_clips(17, size, frames, stop=clips, supersample=supersample):
                pass

        figures[name] = seconds(draw) / clips
    for kind in SCENE_KINDS:

        def draw_kind(kind: str = kind) -> None:
            for _ in iter_clips(18, (96, 160), 16, SceneMix(kinds={kind: 1.0}), stop=max(4, clips // 4)):
                pass

        figures[f"16 frames 96x160, {kind}: CPU s per clip"] = seconds(draw_kind) / max(4, clips // 4)
    configs = [sample_config(clip_seed(17, i), 16, 0.6) for i in range(clips)]
    scenes = []
    figures["set up and accept a scene: CPU s"] = (
        seconds(lambda: scenes.extend(make_scene(config) for config in configs)) / clips
    )
    figures["draws per accepted scene"] = float(np.mean([scene.attempt + 1 for scene in scenes]))
    figures["flow with occlusion, 16 frames 96x160: CPU s per clip"] = (
        seconds(lambda: [render_clip(scene, (96, 160), with_flow=True) for scene in scenes[:8]]) / 8
        - seconds(lambda: [render_clip(scene, (96, 160)) for scene in scenes[:8]]) / 8
    )
    long = make_scene(SceneConfig(seed=2, kind="street", camera="driving", num_frames=2000))
    source = TruthSource(long, (480, 854))
    figures["window prediction, 16 new frames 480x854: CPU s"] = seconds(
        lambda: source.predict(range(100, 116), 0)
    )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    figures = {name: round(value, 4) for name, value in measure(options.clips).items()}
    for name, value in figures.items():
        print(f"{name:70s} {value:9.4f}")
    if options.output is not None:
        import numba

        record = {
            "command": f"python benchmarks/synthetic.py --clips {options.clips}",
            "python": platform.python_version(),
            "numba": numba.__version__,
            "numpy": np.__version__,
            "figures": figures,
        }
        options.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
