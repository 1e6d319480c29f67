"""The repository's recorded cases of the published networks, on the device: float32, and with weights in 16 bits."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.on_gpu.networks import relative_error
from benchmarks.on_gpu.steps import Bench, Step

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "models"

QUICK = ("unet_d", "normalise", "postprocess", "plucker", "schedule", "windows")
"""Cases that stand for all of them at the smallest size."""

NOT_HALF = ("schedule", "normalise", "postprocess", "plucker", "train_loss", "windows", "resampler", "clip")
"""Cases without a network that runs in 16 bits."""


def read_case(family: str, name: str, device: torch.device) -> dict[str, Any]:
    """Arrays of a case on the device, texts as the JSON they hold."""
    found: dict[str, Any] = {}
    with np.load(GOLDEN / family / "golden" / f"{name}.npz") as arrays:
        for key in arrays.files:
            array = arrays[key]
            if array.dtype.kind == "U":
                found[key] = json.loads(array.tolist())
            else:
                tensor = torch.from_numpy(array).to(device)
                found[key] = tensor.float() if tensor.is_floating_point() else tensor
    return found


def geo4d_cases(bench: Bench, result: dict[str, Any], dtype: str) -> None:
    """All recorded cases of Geo4D through the checks of ``benchmarks/parity.py``."""
    import parity

    parity.PLACE.device, parity.PLACE.dtype = str(bench.device), dtype
    cases, folder = parity.load_cases(), GOLDEN / "geo4d" / "golden"
    for file in parity.find_cases(folder):
        if dtype != "float32" and file.name.startswith(NOT_HALF):
            continue
        if bench.smallest and not file.name.startswith(QUICK):
            continue  # seconds each on a CPU, where the tests of the network run them
        attempt(result, file.stem, lambda f=file: _worst(cases, f, folder))  # type: ignore[misc]


def _worst(cases: dict[str, Any], file: Path, folder: Path) -> dict[str, Any]:
    import parity

    prefix = parity.match_prefix(file.name, cases)
    if prefix is None:
        raise ValueError(f"no check for {file.name}")
    found = cases[prefix].check(file, folder)
    missed = [c.name for c in found if not c.passed]
    worst = max(found, key=lambda c: c.rel_l2)
    return {
        "comparisons": len(found),
        "missed": missed,
        "worst": worst.name,
        "rel_l2": worst.rel_l2,
        "max_abs": max(c.max_abs for c in found),
    }


def crafter_unets(bench: Bench, dtype: str) -> dict[str, Any]:
    import parity_geometrycrafter as small

    rows = {}
    for variant in ("determ", "diff"):
        data = read_case("geometrycrafter", f"unet_{variant}", bench.device)
        unet = copy.deepcopy(small.make_unet(GOLDEN / "geometrycrafter" / "golden", variant))
        unet = torch.nn.Module.to(unet, device=bench.device, dtype=getattr(torch, dtype))
        arguments = (
            data["sample"],
            data["timestep"].reshape(-1),
            data["encoder_hidden_states"],
            data["added_time_ids"],
        )
        rows[variant] = relative_error(unet(*arguments), data["out"])
    return rows


def crafter_system(bench: Bench, variant: Any, dtype: str, **settings: Any) -> Any:
    """The small networks as a system on the device, copies of those on the CPU."""
    import parity_geometrycrafter as small

    from geo4d.models.geometrycrafter.config import GeometryCrafterConfig, SchedulerConfig
    from geo4d.models.geometrycrafter.stages import GeometryCrafter

    folder = GOLDEN / "geometrycrafter" / "golden"
    makers = (small.make_point_map_vae, small.make_image_vae, small.make_image_encoder)
    networks = [small.make_unet(folder, variant), *(make(folder) for make in makers)]
    types = dict.fromkeys(("unet_dtype", "encoder_dtype", "decoder_dtype"), dtype)
    config = GeometryCrafterConfig(**types, **settings)  # type: ignore[arg-type]
    return GeometryCrafter(
        variant, *(copy.deepcopy(n) for n in networks), SchedulerConfig(), config, bench.device
    )


def crafter_pipeline(bench: Bench, dtype: str) -> dict[str, Any]:
    """The whole deterministic run against its recorded points."""
    data = read_case("geometrycrafter", "pipeline_determ", bench.device)
    arguments = data["args"]
    system = crafter_system(
        bench, "determ", dtype, window_length=arguments["window_size"], overlap=arguments["overlap"],
        decode_chunk=arguments["decode_chunk_size"],
    )  # fmt: skip
    rgb = data["video_uint8"].float().div(255).movedim(1, -1)
    size = (arguments["height"], arguments["width"])
    found = system.run(rgb.cpu(), data["prior_points"].cpu(), data["prior_mask"].cpu(), size, None)
    points, reference = found.point_map[:, ::4, ::4], data["point_map_every_4th"].cpu()
    error = (points - reference).norm(dim=-1) / reference[..., 2]
    differ = (found.valid[:, ::4, ::4] != data["valid_mask_every_4th"].cpu()).float().mean()
    return {
        "error_over_depth_max": float(error.max()),
        "median": float(error.median()),
        "mask": float(differ),
    }


def crafter_sampling(bench: Bench, dtype: str) -> dict[str, Any]:
    from geo4d.models.geometrycrafter.windows import Conditioning

    data = read_case("geometrycrafter", "sampling_diff", torch.device("cpu"))
    arguments = data["args"]
    system = crafter_system(
        bench, "diff", dtype, num_steps=arguments["num_inference_steps"], guidance_scale=arguments["guidance_scale"],
        window_length=arguments["window_size"], overlap=arguments["overlap"],
    )  # fmt: skip
    conditioning = Conditioning(data["video_embeddings"], data["video_latents"], data["prior_latents"])
    latents = system.sample_video(conditioning, data["noise"][0])
    return relative_error(latents / system.image_vae.config.scaling_factor, data["latents_final_unscaled"])


def crafter_vae(bench: Bench, dtype: str) -> dict[str, Any]:
    data = read_case("geometrycrafter", "point_map_vae", bench.device)
    system = crafter_system(bench, "determ", dtype)
    vae = system.point_map_vae
    rows = {"moments": relative_error(vae.encode_moments(data["maps"], system.image_vae), data["moments"])}
    parts = [vae.decode(chunk, len(chunk)) for chunk in data["latent"].split(3)]
    for name, values in zip(("intrinsic", "logdepth", "mask"), zip(*parts, strict=True), strict=True):
        rows[name] = relative_error(torch.cat(values)[..., ::4, ::4], data[f"{name}_every_4th"])
    return rows


def moge_cases(bench: Bench, dtype: str) -> dict[str, Any]:
    """Points of the recorded picture for each recorded setting, both solvers."""
    import parity_geometrycrafter as small

    from geo4d.models.moge.config import MoGeConfig, MoGeOptions
    from geo4d.models.moge.infer import infer_moge
    from geo4d.models.moge.model import MoGe

    data = read_case("moge", "pinned", bench.device)
    network = small.fill_moge_by_rule(MoGe(MoGeConfig.from_published(data["config"])))
    network = network.cast(getattr(torch, dtype)).to(bench.device)
    rgb = data["image_uint8"].float().div(255).movedim(1, -1)
    rows = {}
    for name, settings in (
        ("default", {}),
        ("fov60", {"fov_x_deg": 60.0}),
        ("noproj", {"force_projection": False}),
    ):
        for solver in ("converged", "published"):
            maps = infer_moge(network, rgb, MoGeOptions(solver=solver, **settings))  # type: ignore[arg-type]
            rows[f"{name} {solver}"] = relative_error(
                maps.points[:, ::4, ::4], data[f"{name}_points_every_4th"]
            )
    return rows


def focal_and_shift(bench: Bench, dtype: str) -> dict[str, Any]:
    from geo4d.models.moge.recover import recover_focal_shift

    data = read_case("moge", "focal_shift", bench.device)
    focal, shift = recover_focal_shift(data["points"], data["mask"])
    return {"focal": relative_error(focal, data["focal"]), "shift": relative_error(shift, data["shift"])}


OTHER_CASES: dict[str, Callable[[Bench, str], dict[str, Any]]] = {
    "crafter unet": crafter_unets,
    "crafter pipeline": crafter_pipeline,
    "crafter sampling": crafter_sampling,
    "crafter vae": crafter_vae,
    "moge": moge_cases,
    "focal and shift": focal_and_shift,
}


def attempt(result: dict[str, Any], name: str, work: Callable[[], dict[str, Any]]) -> None:
    """Keep what the case gives, or its error; the others go on."""
    import traceback

    try:
        with torch.no_grad():
            result[name] = work()
    except Exception as error:
        result[name] = {
            "error": f"{type(error).__name__}: {error}"[:1000],
            "traceback": traceback.format_exc()[-3000:],
        }


def in_type(dtype: str) -> Callable[[Bench, dict[str, Any]], None]:
    def work(bench: Bench, result: dict[str, Any]) -> None:
        geo4d_cases(bench, result, dtype)
        for name, case in OTHER_CASES.items():
            if dtype == "float32" or name != "focal and shift":
                attempt(result, name, lambda c=case: c(bench, dtype))  # type: ignore[misc]
        errors = [name for name, row in result.items() if "error" in row]
        missed = [name for name, row in result.items() if row.get("missed")]
        worst = max((row["rel_l2"] for row in result.values() if "rel_l2" in row), default=0.0)
        text = f"{len(result)} cases, errors in {errors}, worst rel L2 {worst:.1e}"
        result["summary"] = text + (f", beyond the CPU's limits: {missed}" if dtype == "float32" else "")
        if errors:
            raise RuntimeError(f"cases that ended with an error: {', '.join(errors)}")

    return work


STEPS = [
    Step("goldens", "float32", 14, in_type("float32")),
    Step("goldens", "bfloat16", 8, in_type("bfloat16")),
]
