"""Checks of recorded GeometryCrafter and MoGe cases. Every setting comes from the case file or ``configs.json``."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity import Case, Comparison, compare, rule_tensor
from torch import Tensor, nn

from geo4d.diffusion.euler import euler_step
from geo4d.diffusion.karras import karras_noise_levels, v_denoiser, v_preconditioning
from geo4d.models.geometrycrafter.config import (
    GeometryCrafterConfig,
    ImageEncoderConfig,
    ImageVAEConfig,
    PointMapVAEConfig,
    SchedulerConfig,
    UNetConfig,
    Variant,
    from_published,
)
from geo4d.models.geometrycrafter.embedding import (
    build_image_encoder,
    clip_pixels,
    embed_frames,
    resize_for_clip,
)
from geo4d.models.geometrycrafter.prior_maps import condition_prior, frame_records, merge_statistics
from geo4d.models.geometrycrafter.stages import GeometryCrafter
from geo4d.models.geometrycrafter.unet import FrameTokenUNet
from geo4d.models.geometrycrafter.vae import ImageVAE, PointMapVAE
from geo4d.models.moge.config import MoGeConfig, MoGeOptions
from geo4d.models.moge.infer import infer_moge
from geo4d.models.moge.model import MoGe
from geo4d.models.moge.recover import recover_focal_shift

Data = dict[str, Any]


def read_case(file: Path) -> Data:
    """Arrays as float32 (or bool, int) tensors, texts as the JSON they hold."""
    data: Data = {}
    with np.load(file) as arrays:
        for name in arrays.files:
            array = arrays[name]
            if array.dtype.kind == "U":
                data[name] = json.loads(array.tolist())
            elif array.dtype.kind == "f":
                data[name] = torch.from_numpy(array).float()
            else:
                data[name] = torch.from_numpy(array)
    return data


def fill_by_rule(network: nn.Module) -> nn.Module:
    """Give every floating tensor the made-up weight of its key; MoGe's picture constants stay."""
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point() and key not in ("image_mean", "image_std"):
                tensor.copy_(torch.from_numpy(rule_tensor(key, tuple(tensor.shape))))
    return network.eval().requires_grad_(False)


def fill_moge_by_rule(network: MoGe) -> MoGe:
    """The rule, then the override that makes the made-up head look like a perspective view."""
    fill_by_rule(network)
    with torch.no_grad():
        first, last = network.head.output_block[0][0], network.head.output_block[0][2]
        channels = first.weight.shape[1]
        first.weight[:4], first.bias[:4] = 0, 0
        for output, channel, value in ((0, -2, 1), (1, -2, -1), (2, -1, 1), (3, -1, -1)):
            first.weight[output, channels + channel, 1, 1] = value
        last.weight *= 0.05
        last.bias *= 0.05
        for row, column, value in ((0, 0, 2), (0, 1, -2), (1, 2, 2), (1, 3, -2)):
            last.weight[row, column] = value
    return network


@cache
def configs(reference: Path) -> Data:
    """``configs.json`` of a folder."""
    parsed: Data = json.loads((reference / "configs.json").read_text())
    return parsed


@cache
def make_unet(reference: Path, variant: Variant) -> FrameTokenUNet:
    """The small UNet of a variant."""
    config = from_published(UNetConfig, configs(reference)[f"unet_{variant}"]["small"])
    network = FrameTokenUNet(**dataclasses.asdict(config))
    fill_by_rule(network)
    return network


@cache
def make_image_vae(reference: Path) -> ImageVAE:
    """The small image VAE, decoder included."""
    network = ImageVAE(
        from_published(ImageVAEConfig, configs(reference)["svd_vae"]["small"]), with_decoder=True
    )
    fill_by_rule(network)
    return network


@cache
def make_point_map_vae(reference: Path) -> PointMapVAE:
    """The small point-map VAE."""
    network = PointMapVAE(from_published(PointMapVAEConfig, configs(reference)["point_map_vae"]["small"]))
    fill_by_rule(network)
    return network


@cache
def make_image_encoder(reference: Path) -> nn.Module:
    """The small CLIP image encoder."""
    return fill_by_rule(
        build_image_encoder(
            from_published(ImageEncoderConfig, configs(reference)["svd_image_encoder"]["small"])
        )
    )


def make_system(reference: Path, variant: Variant, **settings: Any) -> GeometryCrafter:
    """All small networks of a variant, in float32."""
    return GeometryCrafter(
        variant,
        make_unet(reference, variant),
        make_point_map_vae(reference),
        make_image_vae(reference),
        make_image_encoder(reference),
        from_published(SchedulerConfig, configs(reference)["svd_scheduler"]["config"]),
        GeometryCrafterConfig(unet_dtype="float32", **settings),
    )


def compare_keys(network: nn.Module, file: Path) -> list[Comparison]:
    """Names and shapes of a network against a recorded key list: the number of disagreements must be 0."""
    recorded = {name: tuple(shape) for name, (shape, _) in json.loads(file.read_text()).items()}
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    wrong = set(recorded.items()) ^ set(ours.items())
    return [compare(f"keys of {file.name} that differ", float(len(wrong)), 0.0, "exact")]


def variant_of(file: Path) -> Variant:
    """Which network a case belongs to, from its name."""
    return "determ" if "determ" in file.name else "diff"


def compare_points(name: str, points: Tensor, reference: Tensor) -> Comparison:
    """Largest difference of points over the recorded depth."""
    return compare(
        f"{name}: error / depth", (points - reference).norm(dim=-1) / reference[..., 2].abs(), 0 * reference[..., 2],
        "gc_depth_ratio",
    )  # fmt: skip


def compare_masks(name: str, mask: Tensor, reference: Tensor) -> Comparison:
    """Share of pixels whose mask differs."""
    return compare(
        f"{name}: share that differs", float((mask != reference).float().mean()), 0.0, "gc_mask_share"
    )


@torch.no_grad()
def check_unet(file: Path, reference: Path) -> list[Comparison]:
    data, variant = read_case(file), variant_of(file)
    unet = make_unet(reference, variant)
    timestep = data["timestep"].reshape(-1)
    out = unet(data["sample"], timestep, data["encoder_hidden_states"], data["added_time_ids"])
    keys = reference / f"unet_{variant}_keys_small.json"
    return [compare("out", out, data["out"], "gc_unet"), *compare_keys(unet, keys)]


@torch.no_grad()
def check_point_map_vae(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    vae, image_vae = make_point_map_vae(reference), make_image_vae(reference)
    maps, latent = data["enc_in"], data["latent"]
    found = [
        compare(
            "svd_moments", image_vae.encode_moments(maps[:, 2:3].expand(-1, 3, -1, -1)), data["svd_moments"],
            "gc_latent",
        ),
        compare("encoder_out", vae.encode_offset(maps), data["encoder_out"], "gc_latent"),
        compare("posterior_moments", vae.encode_moments(maps, image_vae), data["posterior_moments"], "gc_latent"),
        compare("latent", vae.encode(maps, image_vae), latent, "gc_latent"),
        compare(
            "svd_decoder_of_latent", image_vae.decode(latent, len(latent)), data["svd_decoder_of_latent"],
            "gc_decoder",
        ),
    ]  # fmt: skip
    even = len(latent) // 2 * 2
    runs = {
        "dec": vae.decode(latent, len(latent)),
        "dec_chunk3": [
            torch.cat(m) for m in zip(*(vae.decode(c, len(c)) for c in latent.split(3)), strict=True)
        ],
        "dec_batch2": vae.decode(latent[:even], even // 2),
    }
    for run, decoded in runs.items():
        for name, value in zip(("intrinsic", "logdepth", "mask"), decoded, strict=True):
            found.append(compare(f"{run}_{name}", value, data[f"{run}_{name}"], "gc_decoder"))
    found += compare_keys(vae, reference / "point_map_vae_keys_small.json")
    found += compare_keys(image_vae, reference / "svd_vae_keys_small.json")
    return found


@torch.no_grad()
def check_clip(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    video, encoder = data["video"], make_image_encoder(reference)
    count = len(data["resized"])
    pixels = clip_pixels(video[:count])
    found = [
        compare("resized", resize_for_clip(video[:count]), data["resized"], "gc_clip"),
        compare("image_embeds", embed_frames(video, encoder), data["image_embeds"], "gc_clip"),
    ]
    if "pixel_values" in data:
        found.append(compare("pixel_values", pixels, data["pixel_values"], "gc_clip"))
    if "pixel_values_mean_std" in data:
        moments = torch.stack([pixels.mean(), pixels.std()])
        found.append(compare("pixel_values_mean_std", moments, data["pixel_values_mean_std"], "gc_clip"))
    if "svd_vae_moments" in data:
        moments = make_image_vae(reference).encode_moments(video)
        found.append(compare("svd_vae_moments", moments, data["svd_vae_moments"], "gc_latent"))
    return found + compare_keys(encoder, reference / "svd_image_encoder_keys_small.json")


def check_scheduler(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    scheduler = from_published(SchedulerConfig, configs(reference)["svd_scheduler"]["config"])
    found = []
    for name in (n for n in data if n.startswith("sigmas_")):
        count = name.removeprefix("sigmas_")
        levels = karras_noise_levels(int(count), scheduler.sigma_min, scheduler.sigma_max)
        timesteps = torch.tensor([v_preconditioning(level).timestep for level in levels[:-1].tolist()])
        found.append(compare(name, levels, data[name], "gc_levels"))
        found.append(compare(f"timesteps_{count}", timesteps, data[f"timesteps_{count}"], "gc_levels"))
        initial = (levels[0] ** 2 + 1) ** 0.5
        found.append(
            compare(f"init_noise_sigma_{count}", initial, data[f"init_noise_sigma_{count}"], "gc_levels")
        )
    steps = sum(name.startswith("model_out_") for name in data)
    trajectory = karras_noise_levels(steps, scheduler.sigma_min, scheduler.sigma_max).tolist()
    x = data["x0_noisy"]
    for step in range(steps):
        level, output = trajectory[step], data[f"model_out_{step}"]
        x0 = v_denoiser(lambda scaled, timestep, output=output: output)(x, level)
        found.append(
            compare(
                f"scaled_{step}", x * v_preconditioning(level).scale_in, data[f"scaled_{step}"], "gc_levels"
            )
        )
        found.append(compare(f"pred_x0_{step}", x0, data[f"pred_x0_{step}"], "gc_levels"))
        x = euler_step(x, x0, level, trajectory[step + 1])
        found.append(compare(f"prev_{step}", x, data[f"prev_{step}"], "gc_levels"))
    return found


def check_prior(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    statistics = merge_statistics(frame_records(data["points"], data["mask"]))
    maps = condition_prior(data["points"], data["mask"], statistics)
    low_high = torch.tensor([statistics.disparity_low, statistics.disparity_high])
    point_map = torch.cat([maps.slopes.movedim(-1, 1), maps.log_depth[:, None]], dim=1)
    size = (int(data["resized_disparity"].shape[1]), int(data["resized_disparity"].shape[2]))
    resized = maps.encoder_input(size)
    exact = {
        "normalized_points": maps.points,
        "disp_min_max": low_high,
        "disparity": maps.disparity,
        "valid_mask": maps.mask,
        "point_map": point_map,
        "intrinsic_map": maps.intrinsics,
        "theta": maps.theta,
        "resized_intrinsic": maps.intrinsics,
    }
    stored_half = {
        "resized_disparity": resized[:, 2],
        "resized_mask": resized[:, 3],
        "resized_logz": resized[:, 1:2],
    }
    return [
        *(compare(name, value, data[name], "gc_prior") for name, value in exact.items()),
        *(compare(name, value, data[name], "gc_prior_resized") for name, value in stored_half.items()),
    ]


def check_decode(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    latents = data["latents"]
    found = []
    for name in (n for n in data if n.endswith("_points")):
        run = name.removesuffix("_points")
        flags = {part[:-1]: bool(int(part[-1])) for part in run.split("_")}
        system = make_system(
            reference,
            "determ",
            decode_chunk=int(data.get("chunk_size", 2)),
            force_projection=flags["proj"],
            force_fixed_focal=flags["fixed"],
            nearest_resize=flags["nearest"],
        )
        height, width = latents.shape[2] * 8, latents.shape[3] * 8
        size = (int(data["target_hw"][0]), int(data["target_hw"][1])) if flags["resize"] else (height, width)
        scaled = latents * system.image_vae.config.scaling_factor
        result = system.points(system.iter_decode(scaled, size))
        found.append(compare(name, result.point_map, data[name], "gc_decoder"))
        found.append(compare_masks(f"{run}_mask", result.valid, data[f"{run}_mask"]))
    return found


def check_pipeline(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    arguments = dict(data["args"])
    size = (arguments.pop("height"), arguments.pop("width"))
    settings = {
        "num_steps": arguments.pop("num_inference_steps") or 1,
        "guidance_scale": arguments.pop("guidance_scale"),
        "window_length": arguments.pop("window_size"),
        "overlap": arguments.pop("overlap"),
        "decode_chunk": arguments.pop("decode_chunk_size"),
        "force_projection": arguments.pop("force_projection", True),
        "force_fixed_focal": arguments.pop("force_fixed_focal", True),
        "nearest_resize": arguments.pop("use_extract_interp", False),
    }
    if arguments:
        raise ValueError(
            f"expected to know every argument of the recorded call, got also {sorted(arguments)}"
        )
    system = make_system(reference, variant_of(file), **settings)
    rgb = data["video_uint8"].float().div(255).movedim(1, -1)
    points, mask = data["prior_points"], data["prior_mask"]
    statistics = merge_statistics(frame_records(points, mask))
    conditioning = system.encode(rgb, points, mask, statistics, size)
    found = [
        compare("video_embeddings", conditioning.tokens, data["video_embeddings"], "gc_clip"),
        compare("video_latents", conditioning.video_latents, data["video_latents"], "gc_latent"),
        compare("prior_latents", conditioning.prior_latents, data["prior_latents"], "gc_latent"),
    ]

    def on_step(window: int, step: int, x: Tensor) -> None:
        name = f"latents_window{window}_step{step}"
        if name in data:
            found.append(compare(name, x[None], data[name], "gc_sampled"))

    noise = data["noise"][0] if "noise" in data else None
    latents = system.sample_video(conditioning, noise, on_step)
    unscaled = latents / system.image_vae.config.scaling_factor
    found.append(compare("latents_final_unscaled", unscaled, data["latents_final_unscaled"], "gc_sampled"))
    result = system.points(system.iter_decode(latents, (rgb.shape[1], rgb.shape[2])))
    found.append(compare_points("point_map", result.point_map, data["point_map"]))
    found.append(compare_masks("valid_mask", result.valid, data["valid_mask"]))
    return found


@contextmanager
def _named(prefix: str, found: list[Comparison]) -> Iterator[list[Comparison]]:
    part: list[Comparison] = []
    yield part
    found += [dataclasses.replace(c, name=f"{prefix} {c.name}") for c in part]


def check_focal_shift(data: Data) -> list[Comparison]:
    found = []
    for case in sorted(name.removesuffix("_points") for name in data if name.endswith("_points")):
        points, mask = data[f"{case}_points"], data[f"{case}_mask"]
        true_focal = data[f"{case}_true_focal"]
        for solver in ("published", "converged"):
            with _named(solver, found) as part:
                for suffix, used in (("", mask), ("_nomask", None)):
                    focal, shift = recover_focal_shift(points, used, solver=solver)
                    for name, value in ((f"{case}_focal{suffix}", focal), (f"{case}_shift{suffix}", shift)):
                        part.append(compare(name, value, data[name], "moge_solved_focal"))
                name = f"{case}_shift_given_true_focal"
                shift = recover_focal_shift(points, mask, true_focal, solver)[1]
                part.append(compare(name, shift, data[name], "moge_solved_focal"))
    return found


@torch.no_grad()
def check_moge(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    if "config" not in data:
        return check_focal_shift(data)
    network = fill_moge_by_rule(MoGe(MoGeConfig.from_published(data["config"])))
    found = compare_keys(network, reference / "moge_small_keys.json")
    if "forward_image" in data:
        points, mask = network(data["forward_image"])
        features = network.features(data["forward_image"])
        last = features[-1][0].flatten(2).transpose(1, 2)
        found += [
            compare("forward_points", points, data["forward_points"], "moge"),
            compare("forward_mask_logit", mask, data["forward_mask_logit"], "moge"),
            compare("backbone_last_feature", last, data["backbone_last_feature"], "moge"),
            compare("backbone_first_feature_cls", features[0][1], data["backbone_first_feature_cls"], "moge"),
        ]
    rgb = data["image_uint8"].float().div(255).movedim(1, -1)
    height, width = rgb.shape[1:3]
    behaviour = "newest" if "newest" in file.name else "pinned"
    runs: dict[str, dict[str, Any]] = {
        "default": {},
        "fov60": {"fov_x_deg": 60.0},
        "noproj": {"force_projection": False},
        "level0": {"resolution_level": 0},
    }
    recorded = {name.removesuffix("_intrinsics") for name in data if name.endswith("_intrinsics")}
    unknown = recorded - runs.keys()
    if unknown:
        raise ValueError(f"expected runs {sorted(runs)}, got also {sorted(unknown)}")
    for run in sorted(recorded):
        for solver in ("published", "converged"):
            options = MoGeOptions(behaviour=behaviour, solver=solver, **runs[run])
            maps = infer_moge(network, rgb, options)
            normalised = maps.intrinsics / maps.intrinsics.new_tensor([width, height, 1])[:, None]
            strict = solver == "published" or "fov_x_deg" in runs[run]
            with _named(solver, found) as part:
                points, depth = data[f"{run}_points"], data[f"{run}_depth"]
                if strict:
                    part.append(compare(f"{run}_points", maps.points, points, "moge"))
                    part.append(compare(f"{run}_depth", maps.depth, depth, "moge"))
                else:
                    ratio = (maps.points - points).norm(dim=-1) / points.norm(dim=-1)
                    part.append(compare(f"{run}_points: error / norm", ratio, 0 * ratio, "moge_solved_ratio"))
                part.append(
                    compare(
                        f"{run}_intrinsics", normalised, data[f"{run}_intrinsics"],
                        "moge" if strict else "moge_solved_focal",
                    )
                )  # fmt: skip
                part.append(compare_masks(f"{run}_mask", maps.mask, data[f"{run}_mask"]))
    return found


CASES: dict[str, Case] = {
    "unet_small_": Case(check_unet),
    "pmap_vae_": Case(check_point_map_vae),
    "clip_embed_": Case(check_clip),
    "scheduler_": Case(check_scheduler),
    "prior_post_": Case(check_prior),
    "decode_point_map": Case(check_decode),
    "pipeline_diff_": Case(check_pipeline),
    "pipeline_determ_": Case(check_pipeline),
    "moge_": Case(check_moge),
}

# The same folder also records the evaluation formulas and the camera solver. Their checks live with those subjects
# and register themselves here where present.
for _subject in ("parity_evaluation", "parity_cameras"):
    if (Path(__file__).resolve().parent / f"{_subject}.py").exists():
        CASES.update(importlib.import_module(_subject).CASES)
