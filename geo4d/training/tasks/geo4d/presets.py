"""The stages of Geo4D's training and their numbers: the published recipe, and two sizes that begin with nothing."""

from dataclasses import replace

from geo4d.models.geo4d.config import Geo4DConfig
from geo4d.models.geo4d.config import small as small_config
from geo4d.models.light_decoder import LightDecoderConfig
from geo4d.training.loop import LoopConfig
from geo4d.training.plans import SLOW_FPS, Preset, Stage, Stream, published_order
from geo4d.training.tasks.tiny.batches import WindowSampling
from geo4d.training.tasks.tiny.tasks import DiffusionConfig
from geo4d.video.resize import GEO4D_SIZES


def full() -> Preset:
    """Geo4D at the released size: DynamiCrafter's weights as the start, 16 frames at strides 1 to 3, AdamW 1e-5."""
    seed = 123
    loop = LoopConfig(
        num_steps=100_000, batch=32, accumulate=1, learning_rate=1e-5, warmup=500, decay=0.0, weight_decay=0.01,
        betas=(0.9, 0.999), ema_decay=0.9999, checkpointing=True, evaluate_every=0, save_every=1000, seed=seed,
    )  # fmt: skip
    stages = {
        "decoder": Stage(
            "decoder", None, (Stream((320, 512), 16, swept=0.0),), WindowSampling(4, (1, 2, 3)),
            replace(loop, batch=8), first_clip=900_000,
            note="point-map decoder with uncertainty; the encoder stays frozen",
        ),
    }  # fmt: skip
    # Sizes of the released model (``video.resize``).
    first, *others = (Stream(size, 46, swept=0.0) for size in ((256, 320), *GEO4D_SIZES))
    stages |= published_order(seed, first, tuple(others), WindowSampling(16, (1, 2, 3)), loop, "decoder")
    chain = tuple(stages)
    stages |= _distilled_stages(
        first, WindowSampling(16, (1, 2, 3)), replace(loop, num_steps=60_000, batch=4, learning_rate=3e-4, decay=0.5),
        replace(loop, num_steps=20_000),
    )  # fmt: skip
    return Preset("geo4d", stages, chain, seed)


def _distilled_stages(
    stream: Stream, sampling: WindowSampling, light: LoopConfig, student: LoopConfig
) -> dict[str, Stage]:
    """Beyond the paper, so that every number is ours: a light decoder of point maps, and a one-step student."""
    every = DiffusionConfig(modalities=("disparity", "points", "rays"))
    return {
        "light-decoder": Stage(
            "light", "decoder", (stream,), replace(sampling, num_frames=min(4, sampling.num_frames)), light,
            first_clip=1_000_000, note="a small decoder, distilled from the point-map decoder",
        ),
        "one-step": Stage(
            "one-step", "disparity", (stream,), sampling, student, every, first_clip=1_100_000,
            note="a student that takes one step where the diffusion network takes five",
        ),
    }  # fmt: skip


def smallest() -> Preset:
    """Geo4D's chain in minutes on one core, with a picture codec of its own in place of the published one."""
    seed = 11
    stream = Stream((64, 64), 8, SLOW_FPS, swept=0.0)
    loop = LoopConfig(
        num_steps=40, batch=2, learning_rate=1e-3, warmup=5, decay=0.3, precision="no", ema_decay=0.95,
        log_every=10, evaluate_every=0, save_every=20, seed=seed,
    )  # fmt: skip
    sampling = WindowSampling(2, (1, 2))
    stages = {
        "pictures": Stage(
            "pictures", None, (stream,), sampling, replace(loop, num_steps=80), first_clip=0,
            note="picture codec in the role of DynamiCrafter's",
        ),
        "decoder": Stage(
            "decoder", "pictures", (stream,), sampling, loop, first_clip=900_000,
            note="point-map decoder with uncertainty; the encoder stays frozen",
        ),
    }  # fmt: skip
    other = Stream((64, 128), 8, SLOW_FPS, swept=0.0)
    stages |= published_order(seed, stream, (other,), WindowSampling(4, (1, 2)), loop, "decoder")
    chain = tuple(stages)
    stages |= _distilled_stages(
        stream,
        WindowSampling(4, (1, 2)),
        replace(loop, learning_rate=2e-3),
        replace(loop, learning_rate=2e-4),
    )
    stages = {name: replace(stage, chunk=8, uses=2) for name, stage in stages.items()}
    light = LightDecoderConfig(out_channels=(3, 1), over_time=False, widths=(64, 32, 16, 8))
    return Preset("geo4d", stages, chain, seed, geo4d=smallest_config(), light_decoder=light, fresh=True)


def smallest_config() -> Geo4DConfig:
    """A Geo4D network of the same classes, the codec's factor of 8 included, that trains on one core.

    Norms have 8 groups: of 4 channels or more, as in the published network, and not of single channels.
    """
    sizes = small_config()
    return replace(
        sizes,
        unet=replace(
            sizes.unet, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(1, 2), norm_num_groups=8
        ),
        vae=replace(sizes.vae, channel_mult=(1, 1, 2, 2), num_res_blocks=1, norm_num_groups=8),
    )


def reduced() -> Preset:
    """The stages of ``smallest`` with a wider network, larger pictures and more steps: about an hour on two cores."""
    made, seed = smallest(), 23
    landscape, square = (Stream(size, 16, SLOW_FPS, swept=0.0) for size in ((64, 128), (64, 64)))
    pair, short, window = (WindowSampling(frames, (1, 2)) for frames in (2, 4, 8))
    loop = LoopConfig(
        num_steps=400, batch=2, learning_rate=1e-3, warmup=50, decay=0.3, precision="bf16", ema_decay=0.995,
        log_every=50, evaluate_every=500, save_every=100, seed=seed,
    )  # fmt: skip
    stages = {
        name: replace(made.stages[name], streams=(landscape,), sampling=pair, loop=loop)
        for name in ("pictures", "decoder")
    }
    stages["pictures"] = replace(stages["pictures"], loop=replace(loop, num_steps=1000))
    stages |= published_order(seed, landscape, (square,), window, loop, "decoder")
    # What a picture shows is learned from many scenes with two frames each; what joins frames comes after.
    stages["points"] = replace(stages["points"], streams=(replace(landscape, clip_frames=4),))
    for name, sampling, batch, steps in (
        ("points", pair, 8, 1300), ("multiresolution", short, 4, 120), ("rays", window, 2, 120),
        ("disparity", window, 2, 450),
    ):  # fmt: skip
        stages[name] = replace(
            stages[name], sampling=sampling, loop=replace(loop, num_steps=steps, batch=batch)
        )
    chain = tuple(stages)
    stages |= _distilled_stages(
        landscape,
        window,
        replace(loop, num_steps=1000, learning_rate=2e-3),
        replace(loop, num_steps=400, learning_rate=2e-4),
    )
    stages = {name: replace(stage, chunk=64, uses=4) for name, stage in stages.items()}
    light = replace(made.light_decoder, widths=made.light_decoder.widths[1:])  # one level less, as the codec
    return replace(made, stages=stages, chain=chain, seed=seed, geo4d=reduced_config(), light_decoder=light)


def reduced_config() -> Geo4DConfig:
    """That of ``smallest_config`` with a wider and deeper diffusion network and a codec of three levels instead of four.

    A picture of 64x128 gets a latent of 16x32 that way. With four levels true disparity came back from the codec with a
    delta of .79, with these of .92.
    """
    sizes = smallest_config()
    unet = replace(sizes.unet, model_channels=64, channel_mult=(1, 2, 2), attention_resolutions=(1, 2, 4))
    return replace(sizes, unet=unet, vae=replace(sizes.vae, channel_mult=(1, 1, 2)))


PRESETS = {"smallest": smallest, "reduced": reduced, "full": full}
