"""The bundled model window by window on rendered scenes, before any fusion: which evidence, how many steps, which spread.

    python benchmarks/tiny_windows.py --cache DIR [--scenes heldout validation turned upright] [--weights FILE]
        [--numbers 0-63] [--table evidence steps calibration] [--output benchmarks/results/NAME.json]

``heldout``: the frozen set, for reporting. ``validation``: textures of the training bank, scenes of their own, half of
them bare rooms, for choosing weights and settings; ``turned``: the same filmed by a camera on its side; ``upright``:
portrait pictures. 192 x 320 pictures for the network, evidence of the real tracker from the whole 24-frame sequence.
Depth is scored after a robust scale and shift of disparity per window, cameras after a similarity.
The evidence of each sequence is computed once and kept in DIR.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from geo4d.datasets.sampling import turn_cameras
from geo4d.evidence.frames import usable_pixels
from geo4d.geometry.cameras import resize_intrinsics
from geo4d.geometry.fit import fit_scale_shift
from geo4d.models.store.identity import file_sha256
from geo4d.models.tiny.anchor import log_correction
from geo4d.models.tiny.calibration import Calibration
from geo4d.models.tiny.conditioning import encode_window
from geo4d.models.tiny.pipeline import TinyPipelineConfig, TinyPredictor, default_dtype
from geo4d.models.tiny.weights import BUNDLED, load_model
from geo4d.run.first_pass import sweep_size
from geo4d.synthetic.render import SyntheticClip
from geo4d.training.scores import camera_scores, depth_scores, spreads_and_errors
from geo4d.training.sources import SyntheticSource
from geo4d.types import EvidenceMaps, Window
from geo4d.video.resize import resize_video

Scenes = Literal["heldout", "validation", "turned", "upright"]
STARTS = (0,)
ALL_STARTS = (0, 8)
LENGTH = 16


VALIDATION_SEED = 20261120 + 1_000_003
"""Far from the seeds of the training scenes; the training itself is checked on clips of this seed, too."""


def make_clip(scenes: Scenes, number: int) -> SyntheticClip:
    """The rendered sequence."""
    if scenes == "heldout":
        from geo4d.synthetic.heldout import iter_heldout

        return next(iter_heldout(numbers=[number]))
    size = (256, 144) if scenes == "upright" else (144, 256)
    source = SyntheticSource(
        VALIDATION_SEED, size, 24, (8.0, 12.0, 16.0, 24.0), indoor=2.0, open_rooms=0.25, blank=0.4
    )
    clip = source.clip(10_000 + number)
    if scenes != "turned":
        return clip
    K, c2w = turn_cameras(clip.intrinsics, clip.c2w, size, 1)
    turned = {
        name: getattr(clip, name).rot90(1, (1, 2))
        for name in ("rgb", "depth", "valid", "dynamic", "object_id")
    }
    return replace(clip, intrinsics=K, c2w=c2w, **turned)


def load_sequence(scenes: Scenes, number: int, cache: Path) -> dict[str, Any]:
    """Frames, truth and motion evidence of one sequence, computed at first use."""
    path = cache / f"{scenes}_{number:02d}.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    from geo4d.evidence.frames import evidence_for_window, fit_motion, iter_evidence

    clip = make_clip(scenes, number)
    rgb = clip.rgb.float() / 255
    size = (192, 320) if rgb.shape[1] < rgb.shape[2] else (320, 192)
    small = resize_video(rgb, size).contiguous()
    swept = sweep_size(size)
    motion = fit_motion(iter(rgb))
    maps = [
        found.resized(size) for found in iter_evidence(motion, iter(resize_video(rgb, swept).contiguous()))
    ]
    item: dict[str, Any] = {
        "rgb": small.half(), "depth": torch.nn.functional.interpolate(clip.depth[:, None], size, mode="nearest")[:, 0],
        "intrinsics": resize_intrinsics(clip.intrinsics, clip.size, size),
        "c2w": clip.c2w, "kind": clip.config.kind, "camera": clip.config.camera,
        "dynamic": float(clip.dynamic.float().mean()),
    }  # fmt: skip
    for start in ALL_STARTS:
        evidence = evidence_for_window(motion, maps[start : start + LENGTH])
        for name, value in vars(evidence).items():
            if isinstance(value, Tensor):
                item[f"{start}/{name}"] = (
                    value.half() if value.dtype == torch.float32 and value.ndim == 4 else value
                )
    cache.mkdir(parents=True, exist_ok=True)
    torch.save(item, path)
    return item


def windows(item: dict[str, Any]) -> list[tuple[Window, EvidenceMaps, Tensor, Tensor]]:
    """(window, evidence, true depth, true cameras) of both windows."""
    result = []
    for index, start in enumerate(STARTS):
        part = slice(start, start + LENGTH)
        frames = torch.arange(start, start + LENGTH)
        window = Window(item["rgb"][part].float(), frames, frames / 12.0, index, 12.0)
        fields = {key.split("/")[1]: value for key, value in item.items() if key.startswith(f"{start}/")}
        evidence = EvidenceMaps(**{k: v.float() if v.is_floating_point() else v for k, v in fields.items()})
        assert evidence.confidence is not None
        evidence = replace(evidence, mask=usable_pixels(evidence.confidence))
        result.append((window, evidence, item["depth"][part], item["c2w"][part]))
    return result


def only_rotation(evidence: EvidenceMaps) -> EvidenceMaps:
    return replace(evidence, mask=torch.zeros_like(evidence.mask))


def merged_disparity(prediction: Any, evidence: EvidenceMaps) -> Tensor:
    """The sweep as one more prediction: fitted to the network's disparity, then weighted by both spreads."""
    disparity, spread = prediction.disparity, prediction.disparity_uncertainty.clamp(min=1e-4)
    confidence = torch.where(evidence.mask, evidence.confidence, 0.0)
    sweep = torch.where(evidence.mask, 1 / evidence.points[..., 2].clamp(min=1e-6), 0.0)
    if float((confidence > 0).float().mean()) < 0.02:
        return disparity
    scale, shift = fit_scale_shift(sweep.flatten(), disparity.flatten(), confidence.flatten())
    fitted = sweep * scale + shift
    sweep_spread = 0.2 * fitted.clamp(min=0.02) / confidence.clamp(min=1e-3)
    weight, other = spread**-2, torch.where(confidence > 0, sweep_spread**-2, 0.0)
    return (disparity * weight + fitted * other) / (weight + other)


def score_one(disparity: Tensor, ray_map: Tensor | None, depth: Tensor, c2w: Tensor) -> dict[str, float]:
    relative, close = depth_scores(disparity[None], depth[None])
    row = {"abs_rel": float(relative), "delta": float(close)}
    if ray_map is not None:
        length = depth[torch.isfinite(depth)].median()[None]
        scores = camera_scores(ray_map.permute(0, 3, 1, 2)[None], c2w[None], length)
        row |= {name: float(value) for name, value in scores.items()}
    return row


def summarise(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean for depth, median for cameras, over windows."""
    summary = {}
    for name in rows[0]:
        values = torch.tensor([row[name] for row in rows])
        if name in ("abs_rel", "delta"):
            summary[name] = round(float(values.mean()), 4)
        else:
            summary[name] = round(float(values.median()), 4)
    return summary


def anchored_afterwards(prediction: Any, evidence: EvidenceMaps, window: Window) -> Tensor:
    """The network without evidence, its answer pulled onto the sweep."""
    encoded = encode_window(
        evidence, (prediction.disparity.shape[1] // 2, prediction.disparity.shape[2] // 2)
    )
    rgb = window.rgb.permute(0, 3, 1, 2)[None] * 2 - 1
    change = log_correction(prediction.disparity[None, :, None], encoded, rgb)[0, :, 0]
    return prediction.disparity * change.exp()


def evidence_table(predictor: TinyPredictor, items: list[dict[str, Any]]) -> dict[str, Any]:
    """Ways to use the evidence, on all windows and by kind of camera."""
    plain = replace(predictor.config, anchor=False, doubt=False)
    loose = TinyPredictor(predictor.model, "", plain, dtype=predictor.dtype)
    credulous = TinyPredictor(predictor.model, "", replace(plain, anchor=True), dtype=predictor.dtype)
    template = predictor.model.codec.template[None, None]
    rows: dict[str, list[dict[str, float]]] = {}
    groups: list[str] = []
    for item in items:
        for window, evidence, depth, c2w in windows(item):
            groups.append(str(item["camera"]))
            alone = predictor.predict(window, seed=0)
            condition = loose.predict(window, seed=0, evidence=evidence)
            full = predictor.predict(window, seed=0, evidence=evidence)
            trusting = credulous.predict(window, seed=0, evidence=evidence)
            rotation = predictor.predict(window, seed=0, evidence=only_rotation(evidence))
            flat = torch.nn.functional.interpolate(template, depth.shape[-2:], mode="bilinear")
            entries = {
                "template, static camera": (flat[0].expand(LENGTH, -1, -1), None),
                "network alone": (alone.disparity, alone.ray_map),
                "extra prediction": (merged_disparity(alone, evidence), None),
                "anchor alone": (anchored_afterwards(alone, evidence, window), None),
                "condition": (condition.disparity, condition.ray_map),
                "condition and extra prediction": (merged_disparity(condition, evidence), condition.ray_map),
                "condition and anchor": (trusting.disparity, trusting.ray_map),
                "condition, anchor and doubt (default)": (full.disparity, full.ray_map),
                "rotation only": (rotation.disparity, rotation.ray_map),
            }
            for name, (disparity, rays) in entries.items():
                rows.setdefault(name, []).append(score_one(disparity, rays, depth, c2w))
    table: dict[str, Any] = {"all": {name: summarise(found) for name, found in rows.items()}}
    for camera in sorted(set(groups)):
        chosen = [i for i, group in enumerate(groups) if group == camera]
        table[f"camera {camera} ({len(chosen)} windows)"] = {
            name: summarise([found[i] for i in chosen]) for name, found in rows.items()
        }
    return table


def steps_table(predictor: TinyPredictor, items: list[dict[str, Any]]) -> dict[str, Any]:
    table = {}
    for num_steps in (1, 5, 10, 25):
        config = replace(predictor.config, num_steps=num_steps)
        other = TinyPredictor(predictor.model, "", config, dtype=predictor.dtype)
        rows = []
        for item in items:
            window, evidence, depth, c2w = windows(item)[0]
            answer = other.predict(window, seed=0, evidence=evidence)
            rows.append(score_one(answer.disparity, answer.ray_map, depth, c2w))
        table[f"{num_steps} steps"] = summarise(rows)
    return table


def calibration_table(predictor: TinyPredictor, items: list[dict[str, Any]]) -> dict[str, Any]:
    """Error of the disparity and of the points against the spread, by its decile: as predicted, and calibrated."""
    model = predictor.model
    fitted, table = model.calibration, {}
    for name, calibration in (("as predicted", Calibration()), ("calibrated", fitted)):
        model.calibration = calibration
        table[name] = spread_table(predictor, items)
    model.calibration = fitted
    return table


def spread_table(predictor: TinyPredictor, items: list[dict[str, Any]]) -> dict[str, Any]:
    spreads: dict[str, list[Tensor]] = {"disparity": [], "points": []}
    errors: dict[str, list[Tensor]] = {"disparity": [], "points": []}
    for item in items:
        window, evidence, depth, _ = windows(item)[0]
        answer = predictor.predict(window, seed=0, evidence=evidence)
        for name, (spread, error) in spreads_and_errors(answer, depth).items():
            spreads[name].append(spread)
            errors[name].append(error)
    table: dict[str, Any] = {}
    for name in spreads:
        spread, error = torch.cat(spreads[name]), torch.cat(errors[name])
        order = spread.argsort()
        deciles = []
        for part in order.chunk(10):
            deciles.append(
                {"spread": round(float(spread[part].mean()), 5), "error": round(float(error[part].mean()), 5)}
            )
        rank = torch.stack([spread.argsort().argsort().double(), error.argsort().argsort().double()])
        table[name] = {"deciles": deciles, "rank correlation": round(float(torch.corrcoef(rank)[0, 1]), 3)}
    return table


TABLES = {
    "evidence": evidence_table,
    "steps": steps_table,
    "calibration": calibration_table,
}


def parse_numbers(text: str) -> list[int]:
    numbers: list[int] = []
    for part in text.split(","):
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        numbers += range(int(first), int(last or first) + 1, int(step or 1))
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--scenes", default="heldout", choices=get_args(Scenes))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--numbers", default="0-63", help="for example 0-63:3 or 1,5,9")
    parser.add_argument("--table", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    items = [
        load_sequence(options.scenes, number, options.cache) for number in parse_numbers(options.numbers)
    ]
    result: dict[str, Any] = {
        "scenes": options.scenes,
        "sequences": options.numbers,
        "torch": torch.__version__,
    }
    if options.table:
        dtype = default_dtype("cpu")
        model = load_model(options.weights)
        predictor = TinyPredictor(model, "", TinyPipelineConfig(), dtype=dtype)
        result |= {"weights_sha256": file_sha256(options.weights or BUNDLED), "dtype": dtype}
        for name in options.table:
            result[name] = TABLES[name](predictor, items)
            print(name, json.dumps(result[name], indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
