"""Checks of recorded Geo4D cases that need no network: windows, noise schedule, maps and their normalised form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity import PLACE, Comparison, compare
from torch import Tensor

from geo4d.diffusion.schedules import (
    ScheduleConfig,
    make_ddim_table,
    make_schedule,
    schedule_buffers,
)
from geo4d.geometry.poses import inverse
from geo4d.models.geo4d import modalities
from geo4d.video.windows import published_windows

Data = dict[str, Any]


def read_case(file: Path) -> Data:
    """Arrays as tensors, zero-dimensional ones and text as Python values, JSON texts parsed."""
    data: Data = {}
    with np.load(file) as arrays:
        for name in arrays.files:
            array = arrays[name]
            if array.dtype.kind == "U":
                data[name] = array.tolist()
            elif array.ndim == 0:
                data[name] = array.item()
            else:
                data[name] = torch.from_numpy(array).to(PLACE.device)
    for name in ("config", "clip_config", "settings"):
        if name in data:
            data[name] = json.loads(data[name])
    return data


def check_windows(file: Path, reference: Path) -> list[Comparison]:
    comparisons = []
    for name, recorded in json.loads(file.read_text()).items():
        numbers = {key: int(value) for key, value in re.findall(r"([A-Za-z]+)_?(\d+)", name)}
        if not {"T", "stride"} <= numbers.keys() <= {"T", "stride", "length"}:
            raise ValueError(f"expected names like T50_stride4 or T50_stride4_length16, got {name}")
        ours = published_windows(numbers["T"], numbers.get("length", 16), numbers["stride"])
        comparisons.append(compare(name, ours, [tuple(window) for window in recorded], "exact"))
    return comparisons


def check_schedule(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    options = data.get("config", data.get("settings", {}))
    config = ScheduleConfig(
        num_timesteps=len(data["betas_f64"]),
        beta_start=options.get("linear_start", ScheduleConfig.beta_start),
        beta_end=options.get("linear_end", ScheduleConfig.beta_end),
        zero_terminal_snr=options.get("rescale_betas_zero_snr", True),
        dynamic_rescale=options.get("use_dynamic_rescale", True),
        base_scale=options.get("base_scale", ScheduleConfig.base_scale),
    )
    schedule = make_schedule(config)
    plain = make_schedule(ScheduleConfig(config.num_timesteps, config.beta_start, config.beta_end, False))
    ours: Data = {
        "betas_f64": schedule.betas,
        "alphas_cumprod_f64": schedule.alphas_cumprod,
        "f64_betas_before_rescale": plain.betas,
        **{f"buf_{name}": table for name, table in schedule_buffers(schedule).items()},
    }
    comparisons = []
    for name, recorded in data.items():
        if name in ("config", "settings"):
            continue
        match = re.fullmatch(r"(uniform_trailing|uniform)_(\d+)_eta([\d.p]+)_(\w+)", name)
        if match is None:
            predicted = ours[name]
        else:
            eta = float(match[3].replace("p", "."))
            table = make_ddim_table(schedule, int(match[2]), match[1], eta)  # type: ignore[arg-type]
            predicted = (
                (1 - table.alphas).sqrt() if match[4] == "sqrt_one_minus_alphas" else getattr(table, match[4])
            )
        limit = "exact" if name.endswith("timesteps") else "schedule"
        comparisons.append(compare(name, predicted, recorded, limit))
    if config.zero_terminal_snr:
        last = schedule_buffers(schedule)["alphas_cumprod"][-1:]
        comparisons.append(compare("last alphas_cumprod is 0", last, [0.0], "exact"))
    return comparisons


def check_normalise(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    valid = data["valid"]
    points, scale, shift = modalities.normalise_points(data["points"], valid)
    decoded = modalities.decode_points(points)
    disparity, d_scale, d_shift = modalities.normalise_disparity(data["points"][..., 2], valid)
    depth, z_scale, z_shift = modalities.normalise_depth(data["depth"])
    ours = {
        "pc_normalised": points,
        "pc_scale": scale,
        "pc_shift": shift,
        "pc_denormalised": decoded,
        "disparity_normalised": disparity,
        "disparity_scale": d_scale,
        "disparity_shift": d_shift,
        "depth_normalised": depth,
        "depth_scale": z_scale,
        "depth_shift": z_shift,
        "roundtrip_disparity01": modalities.decode_disparity(disparity),
    }
    inputs = {"points", "valid", "depth"}
    return [compare(name, ours[name], value, "formula") for name, value in data.items() if name not in inputs]


def masks_agree(
    name: str, predicted: Tensor, recorded: Tensor, margin: Tensor, tolerance: float = 1e-4
) -> Comparison:
    """Masks must be equal where the value they come from is farther than ``tolerance`` from a threshold."""
    differing = (predicted != recorded) & (margin > tolerance)
    return compare(name, differing, torch.zeros_like(differing), "exact")


def compare_points(
    data: Data, decoded: modalities.DecodedPoints, raw: Tensor, tolerance: float, prefix: str, limit: str
) -> list[Comparison]:
    """Post-processed point maps against arrays named ``<prefix>...``; ``raw`` gives the distance from thresholds."""
    sky_value, far = modalities.SKY_VALUE, modalities.FAR_LIMIT
    coordinates = raw[..., :3]
    sky_margin = ((coordinates - sky_value).abs() - tolerance).abs().amin(-1)
    far_margin = (coordinates.abs() - far).abs().amin(-1)
    margin = torch.minimum(sky_margin, far_margin)
    comparisons = []
    masks = {
        "sky": (decoded.sky, sky_margin),
        "far": (decoded.far, far_margin),
        "invalid": (~decoded.valid, margin),
    }
    for mask, (predicted, distance) in masks.items():
        if prefix + mask in data:
            comparisons.append(masks_agree(prefix + mask, predicted, data[prefix + mask][..., 0], distance))
    if prefix + "uncertainty" in data:
        uncertainty = decoded.uncertainty[..., None]
        comparisons.append(compare(prefix + "uncertainty", uncertainty, data[prefix + "uncertainty"], limit))
    recorded = data[prefix + "conf"]
    certain = (margin > 1e-4)[..., None].expand(recorded.shape)
    confidence = decoded.confidence[..., None]
    limit_confidence = "confidence"
    comparisons.append(compare(prefix + "conf", confidence[certain], recorded[certain], limit_confidence))
    comparisons.append(compare(prefix + "pts3d", decoded.points, data[prefix + "pts3d"], limit))
    return comparisons


def check_postprocess(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    raw = data["raw"].permute(0, 2, 3, 1)
    tolerances = {"eval_": modalities.SKY_TOLERANCE["evaluation"], "demo_": modalities.SKY_TOLERANCE["demo"]}
    if "settings" in data:
        tolerances |= {
            name.removesuffix("sky_eps"): v for name, v in data["settings"].items() if "sky_eps" in name
        }
    comparisons = []
    for prefix, tolerance in tolerances.items():
        if prefix + "conf" in data:
            decoded = modalities.decode_point_map(raw, tolerance)
            comparisons += compare_points(data, decoded, raw, tolerance, prefix, "formula")
    return comparisons


def check_plucker(file: Path, reference: Path) -> list[Comparison]:
    data = read_case(file)
    comparisons = []
    direction, moment = (data[name].permute(0, 2, 3, 4, 1) for name in ("direction", "moment"))
    cameras = torch.cat([modalities.rays_to_cameras(d, m) for d, m in zip(direction, moment, strict=True)])
    ours = {
        "recovered_c2w": cameras,
        "recovered_R": cameras[:, :3, :3],
        "recovered_T_w2c": inverse(cameras)[:, :3, 3],
        "recovered_center": cameras[:, :3, 3],
    }
    for name, predicted in ours.items():
        comparisons.append(compare(name, predicted, data[name].reshape(predicted.shape), "ray_cameras"))
    return comparisons
