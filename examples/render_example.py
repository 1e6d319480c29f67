"""Draw the example clip and its ground truth again: ``python examples/render_example.py OUT``.

``clip.mp4`` (VP9) and ``clip_truth/`` beside this script were made by it. Needs the extra ``synthetic``.
"""

import sys
from pathlib import Path

from geo4d.formats.movies import save_movie
from geo4d.synthetic.render import make_scene, render_clip
from geo4d.synthetic.scene import SceneConfig
from geo4d.synthetic.storage import save_clip

CONFIG = SceneConfig(seed=2001, kind="room", camera="orbit", num_frames=32, fps=16.0, aspect=0.6)
SIZE = (192, 320)


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    clip = render_clip(make_scene(CONFIG), SIZE, supersample=2)
    save_movie(out / "clip.mp4", (frame.numpy() for frame in clip.rgb), CONFIG.fps)
    save_clip(clip, out / "clip_truth", half=True, with_rgb=False, overwrite=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/render_example.py OUT")
    main(Path(sys.argv[1]))
