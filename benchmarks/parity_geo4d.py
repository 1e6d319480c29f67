"""Checks of recorded Geo4D cases. Every setting comes from the case file."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from parity import PLACE, Case, Comparison, compare, rule_tensor
from parity_geo4d_maps import (
    check_normalise,
    check_plucker,
    check_postprocess,
    check_schedule,
    check_windows,
    compare_points,
    read_case,
)
from torch import Tensor, nn

from geo4d.diffusion.denoiser import denoise_from_v, v_training_pair
from geo4d.diffusion.samplers import iter_ddim
from geo4d.diffusion.schedules import (
    make_ddim_table,
    make_schedule,
)
from geo4d.models.devices import DTYPES
from geo4d.models.geo4d import config as configs
from geo4d.models.geo4d import modalities
from geo4d.models.geo4d.conditioning import PROMPT, compute_constants, prepare_picture, prompt_tokens
from geo4d.models.geo4d.config import Geo4DConfig
from geo4d.models.geo4d.noise import WindowNoise
from geo4d.models.geo4d.options import Geo4DOptions
from geo4d.models.geo4d.pipeline import Geo4DPredictor
from geo4d.models.geo4d.vae import VAE, sample_moments
from geo4d.models.geo4d.weights import PublishedKey, from_published, main_table, make_parts, point_vae_table
from geo4d.models.layers import hold_weights
from geo4d.types import Window

Data = dict[str, Any]


def published_state(table: dict[str, PublishedKey], prefix: str = "") -> dict[str, Tensor]:
    """A checkpoint in the authors' format with the made-up weights; keys that start with ``prefix``."""
    return {
        name: torch.from_numpy(rule_tensor(name, key.shape))
        for name, key in table.items()
        if name.startswith(prefix)
    }


def load_part(part: str, config: Geo4DConfig, file_prefix: str = "") -> nn.Module:
    """One part of the network with made-up weights, through the checkpoint adapter."""
    table = point_vae_table(config) if part == "point_vae" else main_table(config)
    held = {name: key for name, key in table.items() if key.part == part}
    parts, _ = from_published(published_state(held), held)
    module = make_parts(config, [part])[part]
    module.load_state_dict(parts[part], assign=True)
    hold_weights(module, DTYPES[PLACE.dtype])
    return module.eval().requires_grad_(False).to(PLACE.device)


def unet_only(options: Data) -> Geo4DConfig:
    return Geo4DConfig(unet=configs.unet_from_published(options))


def run_unet(unet: nn.Module, data: Data, x: Tensor) -> Tensor:
    full = torch.cat([x, data["c_concat"]], dim=1)
    return unet(full, data["timesteps"], data["c_crossattn"], data["fs"])


MIDDLE = {
    "time_embed": "time_embedding",
    "fps_embedding": "fps_embedding",
    "input_blocks_0": "conv_in",
    "init_attn": "initial_attention",
    "input_blocks_1_0": "down.0.residual",
    "input_blocks_1_1": "down.0.spatial",
    "input_blocks_1_2": "down.0.temporal",
    "middle_block": "middle",
    "output_blocks_2": "up.2",
}
"""Published name of an intermediate result -> our module."""


def check_unet(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    unet = load_part("unet", unet_only(data["config"]))
    recorded = {name[4:]: value for name, value in data.items() if name.startswith("mid_")}
    seen: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, arguments: Any, output: Tensor) -> None:
        seen[name] = output

    for name in recorded:
        unet.get_submodule(middle_module(name)).register_forward_hook(partial(keep, name))
    comparisons = [compare("out", run_unet(unet, data, data["x"]), data["out"], "module")]
    if "n_params" in data:
        count = sum(p.numel() for p in unet.parameters())
        comparisons.append(compare("n_params", count, data["n_params"], "exact"))
    for name, value in recorded.items():
        output = seen[name]
        if value.ndim == 5:  # [item, C, T, H, W]; ours are frames of the first item
            output = output[: value.shape[2]].transpose(0, 1)[None]
        comparisons.append(compare("mid_" + name, output[: value.shape[0]], value, "intermediate"))
    return comparisons


def middle_module(published: str) -> str:
    """Our module for any published block name such as ``input_blocks_4_1``."""
    if published in MIDDLE:
        return MIDDLE[published]
    match = re.fullmatch(r"(input|output)_blocks_(\d+)(?:_(\d))?|middle_block_(\d)", published)
    if match is None:
        raise ValueError(f"no module for the recorded intermediate result {published!r}")
    children = ("residual", "spatial", "temporal")
    if match[4] is not None:
        return "middle.second" if match[4] == "3" else f"middle.first.{children[int(match[4])]}"
    side, index = ("down", int(match[2]) - 1) if match[1] == "input" else ("up", int(match[2]))
    return f"{side}.{index}" + ("" if match[3] is None else f".{children[int(match[3])]}")


def check_vae(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    config = Geo4DConfig(vae=configs.vae_from_published(data["config"]))
    part = {"first_stage_model.": "vae", "model.": "point_vae"}[data["prefix"]]
    vae = load_part(part, config)
    assert isinstance(vae, VAE)
    picture = data["image_u8"].permute(0, 3, 1, 2).float() / 255.0 * 2.0 - 1.0
    moments = vae.moments(picture)
    raw = vae.decode_with_uncertainty(data["z"])
    ours = {
        "moments": moments,
        "sample": sample_moments(moments, data["noise"]),
        "decoded": vae.decode(data["z"]),
        "decoded_conf": raw,
        "enc_adaptor_moments": vae.moments(picture, adapt=True),
    }
    comparisons = [compare(name, value, data[name], "module") for name, value in ours.items() if name in data]
    if "post_conf" in data:
        tolerance = data.get("settings", {}).get("sky_eps", 0.1)
        raw = raw.permute(0, 2, 3, 1)
        decoded = modalities.decode_point_map(raw, tolerance)
        comparisons += compare_points(data, decoded, raw, tolerance, "post_", "module")
    return comparisons


def check_resampler(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    config = Geo4DConfig(resampler=configs.resampler_from_published(data["config"]))
    resampler = load_part("resampler", config)
    return [
        compare(f"out{axes}", resampler(data[f"x{axes}"]), data[f"out{axes}"], "module")
        for axes in (3, 4)
        if f"x{axes}" in data
    ]


def check_clip(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    config = Geo4DConfig(clip=configs.clip_from_published(data["config"]))
    size = config.clip.image_size
    comparisons = []
    tower = load_part("image", config)
    for name, recorded in data.items():
        if match := re.fullmatch(r"pre_(\d+x\d+)(?:_stride(\d+))?", name):
            picture = to_picture(data[f"img_{match[1]}_u8"])
            step = int(match[2] or 1)
            prepared = prepare_picture(picture, size)[0][:, ::step, ::step]
            comparisons.append(compare(name, prepared, recorded, "module"))
        elif match := re.fullmatch(r"tok_(\d+x\d+)", name):
            tokens = tower(to_picture(data[f"img_{match[1]}_u8"]))
            comparisons.append(compare(name, tokens[0, : len(recorded)], recorded, "module"))
            if f"{name}_mean_abs" in data:
                mean = tokens.double().abs().mean()
                comparisons.append(compare(f"{name}_mean_abs", mean, data[f"{name}_mean_abs"], "module"))
        elif name == "pre_zero_image":
            prepared = prepare_picture(torch.zeros(1, 3, 64, 64, device=PLACE.device), size)
            comparisons.append(compare(name, prepared[0, :, 0, 0], recorded, "module"))
        elif name == "tok_zero_image":
            tokens = tower(torch.zeros(1, 3, 64, 64, device=PLACE.device))
            comparisons.append(compare(name, tokens[:, : recorded.shape[1]], recorded, "module"))
    if "text_out" in data:
        text = load_part("text", config)(data["token_ids"])
        comparisons.append(compare("text_out", text, data["text_out"], "module"))
    for prompt, ids in zip(data.get("prompts", []), data.get("token_ids", []), strict=True):
        if prompt in ("", PROMPT):
            comparisons.append(compare(f"ids of {prompt[:20]!r}", prompt_tokens(prompt)[0], ids, "exact"))
    return comparisons


def to_picture(image_u8: Tensor) -> Tensor:
    return image_u8.permute(2, 0, 1)[None].float() / 255.0 * 2.0 - 1.0


def ddim_conditions(data: Data) -> list[Tensor]:
    names = ("c_crossattn", "uc_crossattn", "uc2_crossattn")
    return [data[name] for name in names if name in data]


def check_ddim(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    settings = data["settings"]
    unet = load_part("unet", unet_only(data["config"]))
    schedule = make_schedule()
    steps = settings.get("S", settings.get("steps"))
    table = make_ddim_table(schedule, steps, settings["spacing"], settings["eta"])
    outputs: list[Tensor] = []

    def predict_v(x: Tensor, timestep: Tensor, context: object) -> Tensor:
        full = torch.cat([x, data["c_concat"]], dim=1)
        outputs.append(unet(full, timestep, context, data["fs"]))
        return outputs[-1]

    denoise = denoise_from_v(
        predict_v,
        ddim_conditions(data),
        schedule.alphas_cumprod,
        scale=settings["scale"],
        # With a scale of 1 the published sampler evaluates no other branch.
        partial_scale=None if settings["scale"] == 1.0 else settings.get("cfg_img"),
        rescale=settings["guidance_rescale"],
    )
    noise: Callable[[int], Tensor] | None = None
    if "step_noise" in data:
        noise = data["step_noise"].__getitem__
    states = list(iter_ddim(denoise, data["x_T"], table, noise))
    limit = "latent" if settings["scale"] == 1.0 else "guided_latent"
    comparisons = [
        compare("timesteps", table.timesteps.sort().values, data["timesteps"].sort().values, "exact"),
        compare("first_model_output", outputs[0], data["first_model_output"], "module"),
        compare("final", states[-1][0], data["final"], limit),
    ]
    for position, name in enumerate(("x_inter", "pred_x0")):
        for index, recorded in enumerate(data.get(name, [])):
            comparisons.append(compare(f"{name}[{index}]", states[index][position], recorded, limit))
    return comparisons


def check_train_loss(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    schedule = make_schedule()
    scale = schedule.scale.float().to(PLACE.device)
    clean = data["z"] * scale[data["timesteps"]].reshape(-1, 1, 1, 1, 1)
    noisy, target = v_training_pair(
        data["z"], data["noise"], data["timesteps"], schedule.alphas_cumprod, schedule.scale
    )
    ours = {"x_start_rescaled": clean, "x_noisy": noisy, "v_target": target}
    if "config" in data:
        unet = load_part("unet", unet_only(data["config"]))
        output = run_unet(unet, data, noisy)
        per_sample = (output - target).square().flatten(1).mean(1)
        ours |= {"model_output": output, "loss_per_sample": per_sample, "loss": per_sample.mean()}
    return [compare(name, value, data[name], "module") for name, value in ours.items() if name in data]


def find_token_ids(prompt: str, reference: Path) -> Tensor:
    """Token ids of a prompt: the two known ones, or any that a ``clip_`` case of the folder records."""
    if prompt in ("", PROMPT):
        return prompt_tokens(prompt)
    for file in sorted(reference.glob("clip_*.npz")):
        data = read_case(file)
        if prompt in data.get("prompts", []):
            return data["token_ids"][data["prompts"].index(prompt)][None].cpu()
    raise ValueError(f"no case of {reference} records the token ids of the prompt {prompt!r}")


def make_predictor(data: Data, token_ids: Tensor) -> Geo4DPredictor:
    """The whole network of an end-to-end case from the authors' two files, the towers run for the constants."""
    config = configs.from_published(data["config"], data.get("clip_config"))
    parts, _ = from_published(published_state(main_table(config)), main_table(config))
    point, _ = from_published(published_state(point_vae_table(config)), point_vae_table(config))
    modules: Any = make_parts(config, [*parts, "point_vae"])
    for part, tensors in (parts | point).items():
        modules[part].load_state_dict(tensors, assign=True)
    settings = data["settings"]
    frames = data["video_u8"].shape[0]
    resampler_frames = config.resampler.num_frames
    if config.per_frame_image_tokens and resampler_frames != frames:
        raise ValueError(f"expected {resampler_frames} frames for per-frame image tokens, got {frames}")
    return Geo4DPredictor(
        config,
        modules["unet"],
        modules["vae"],
        modules["point_vae"],
        compute_constants(modules["text"], modules["image"], modules["resampler"], token_ids),
        image_tower=modules["image"],
        resampler=modules["resampler"],
        options=Geo4DOptions(
            num_steps=settings.get("steps", settings.get("S")),
            spacing=settings["spacing"],
            eta=settings["eta"],
            guidance=settings["scale"],
            image_guidance=None if settings["scale"] == 1.0 else settings.get("cfg_img"),
            guidance_rescale=settings["guidance_rescale"],
            sky_tolerance=settings["sky_eps"],
        ),
        device=PLACE.device,
        dtype=DTYPES[PLACE.dtype],
    )


def check_end_to_end(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    predictor = make_predictor(data, find_token_ids(data["prompt"], reference))
    guided = predictor.options.guidance != 1.0 or predictor.options.image_guidance is not None
    latent_limit = "guided_latent" if guided else "latent"
    rgb = data["video_u8"].float() / 255.0
    step_noise = data.get("step_noise")
    noise = WindowNoise(
        data["posterior_noise"], data["x_T"][0], None if step_noise is None else step_noise[:, 0]
    )
    colour = predictor.encode(rgb, noise)
    contexts = predictor.contexts(rgb[None])
    steps: list[Tensor] = []
    latent = predictor.sample(
        colour, contexts, torch.tensor([data["fps"]]), [noise], lambda step, x: steps.append(x)
    )
    comparisons = [compare("c_concat", colour, data["c_concat"], "latent")]
    for name, context in zip(("c_crossattn", "uc_crossattn", "uc2_crossattn"), contexts, strict=False):
        if name in data:
            comparisons.append(compare(name, context, data[name], "module"))
    for index, recorded in enumerate(data.get("latents_after_each_step", [])):
        comparisons.append(compare(f"latent after step {index}", steps[index], recorded, latent_limit))
    comparisons.append(compare("final_latent", latent, data["final_latent"], latent_limit))

    maps = predictor.decode(latent)
    everything = torch.cat(
        [maps.point_map, maps.ray_direction, maps.ray_moment, maps.disparity[..., None]], dim=-1
    )
    chosen = data["frames"].tolist()
    ours = {
        "decoded_raw": everything[chosen].permute(3, 0, 1, 2),
        "decoded_mean": everything.mean((1, 2)).mT,
        "decoded_std": everything.flatten(1, 2).std(1).mT,
    }
    comparisons += [compare(name, value, data[name], "maps") for name, value in ours.items() if name in data]
    tolerance = predictor.options.sky_tolerance
    times = torch.arange(len(rgb)).double() / data["fps"]
    window = Window(rgb, torch.arange(len(rgb)), times, 0, float(data["fps"]))
    prediction = predictor.read(maps, window, 0)
    if "conf" in data:
        decoded = modalities.decode_point_map(maps.point_map[chosen], tolerance)
        comparisons += compare_points(data, decoded, maps.point_map[chosen], tolerance, "", "maps")
        comparisons.append(
            compare("prediction.point_map", prediction.point_map[chosen], data["pts3d"], "maps")
        )
    if "disparity" in data:
        disparity = prediction.disparity[chosen][..., None]
        comparisons.append(compare("prediction.disparity", disparity, data["disparity"], "maps"))
    comparisons.append(compare("prediction.ray_c2w", prediction.ray_c2w, data["c2w"], "pipeline_cameras"))
    return comparisons


CASES: dict[str, Case] = {
    "windows": Case(check_windows),
    "schedule": Case(check_schedule),
    "normalise": Case(check_normalise),
    "postprocess": Case(check_postprocess),
    "plucker_": Case(check_plucker),
    "unet_": Case(check_unet),
    "vae_": Case(check_vae),
    "resampler_": Case(check_resampler),
    "clip_": Case(check_clip),
    "ddim_": Case(check_ddim),
    "train_loss": Case(check_train_loss),
    "end_to_end": Case(check_end_to_end),
}
