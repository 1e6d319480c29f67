"""The stages of the bundled model's training and their numbers at both sizes.

The bundled weights took a shorter way than Geo4D's to the same end (``pairs``, ``clips``, ``windows``: all modalities
together, more frames from stage to stage), because on a few hours of CPU the number of different scenes decides;
``docs/training.md`` has the measurements. Geo4D's own order is there beside it.
"""

from dataclasses import replace

from geo4d.models.tiny.config import smallest_preset
from geo4d.training.loop import LoopConfig
from geo4d.training.plans import SLOW_FPS, Preset, Stage, Stream, published_order
from geo4d.training.tasks.tiny.batches import WindowSampling

JOINT = ("codec", "pairs", "clips", "windows", "depth", "calibration")
"""The way of the bundled weights."""


def _joint_stages(seed: int) -> dict[str, Stage]:
    """Codec, three joint stages, depth network: the way of the bundled weights."""
    pairs = Stream((64, 112), 4, SLOW_FPS)
    upright = Stream((112, 64), 4, SLOW_FPS, ratio=0.25)
    # People hold phones upright, and some devices film on their side.
    turned = 0.12
    return {
        "codec": Stage("codec", None, (pairs,), chunk=300, note="bases and spreads of the latent, in closed form"),
        "pairs": Stage(
            "diffusion", "codec", (pairs, upright), WindowSampling(2, (1, 2, 3), turned=turned),
            LoopConfig(num_steps=30_000, batch=16, evaluate_every=500, save_every=250, seed=seed),
            first_clip=1_000, note="two frames of a clip, most scenes per second",
        ),
        "clips": Stage(
            "diffusion", "pairs",
            (Stream((96, 160), 4, SLOW_FPS), Stream((160, 96), 4, SLOW_FPS, ratio=0.25)),
            WindowSampling(4, (1,), turned=turned),
            LoopConfig(
                num_steps=6_000, batch=4, learning_rate=7e-4, evaluate_every=500, save_every=200, decay=0.0, seed=seed
            ),
            chunk=128, first_clip=200_000, note="four frames at the size of inference",
        ),
        "windows": Stage(
            "diffusion", "clips", (Stream((96, 160), 16), Stream((160, 96), 16, ratio=0.25)),
            WindowSampling(16, (1,), turned=turned),
            LoopConfig(
                num_steps=1_000, batch=2, learning_rate=4e-4, evaluate_every=200, save_every=50, decay=0.7, seed=seed
            ),
            chunk=48, first_clip=300_000, note="sixteen frames",
        ),
        "depth": Stage(
            "depth", "windows",
            tuple(
                Stream(size, 4, SLOW_FPS, pitched=0.25, swept=0.25, ratio=ratio)
                for size, ratio in (((192, 320), 1.0), ((224, 288), 1.0), ((320, 192), 0.5))
            ),
            WindowSampling(4, (1,), turned=turned),
            LoopConfig(
                num_steps=2_600, batch=4, learning_rate=1.2e-3, decay=0.5, evaluate_every=400, save_every=100, seed=seed
            ),
            chunk=64, uses=2, first_clip=400_000, note="twice the size, with the picture encoder: edges, spread, sky",
        ),
        "calibration": Stage(
            "calibration", "depth", (Stream((192, 320), 16, swept=0.25),), WindowSampling(16, (1,)),
            chunk=48, first_clip=450_000, note="from the predicted spread to the error seen there, in closed form",
        ),
    }  # fmt: skip


def full() -> Preset:
    """The bundled size."""
    seed = 20261120
    stages = _joint_stages(seed)
    stages |= published_order(
        seed,
        Stream((64, 112), 8, SLOW_FPS),
        (Stream((80, 80), 8, SLOW_FPS), Stream((96, 160), 8, SLOW_FPS)),
        WindowSampling(4, (1, 2)),
        LoopConfig(num_steps=5_000, batch=8, evaluate_every=500, save_every=250, seed=seed),
        "codec",
    )
    return Preset("tiny", stages, JOINT, seed)


def smallest() -> Preset:
    """All stages in seconds: for tests, and to see that a machine can train."""
    seed = 7
    stream = Stream((32, 48), 4, SLOW_FPS)
    loop = LoopConfig(num_steps=4, batch=2, warmup=2, log_every=2, evaluate_every=0, save_every=2, seed=seed)
    stages = {
        name: replace(
            stage,
            streams=(stream,),
            sampling=replace(stage.sampling, num_frames=2, strides=(1, 2)),
            loop=replace(loop, learning_rate=stage.loop.learning_rate),
            chunk=4,
            uses=2,
        )
        for name, stage in _joint_stages(seed).items()
    }
    stages |= published_order(
        seed, stream, (Stream((32, 32), 4, SLOW_FPS),), WindowSampling(2, (1, 2)), loop, "codec"
    )
    twice = Stream((64, 96), 4, SLOW_FPS, swept=0.25)
    stages |= {name: replace(stages[name], streams=(twice,)) for name in ("depth", "calibration")}
    stages = {name: replace(stage, chunk=4, uses=2) for name, stage in stages.items()}
    return Preset("tiny", stages, JOINT, seed, smallest_preset())


PRESETS = {"smallest": smallest, "full": full}
