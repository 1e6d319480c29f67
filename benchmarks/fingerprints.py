"""Fingerprints of what the package computes, so that a move of code can be shown to change nothing.

    python benchmarks/fingerprints.py OUT.json [--against FILE] [--only PART ...] [--match TEXT] [--cache DIR]
        [--samples ROOT] [--clips CLIP ...]

Every case is a SHA-256 over the bytes of its arrays (float64 where the code has float64) and over all its diagnostics,
with figures against the truth and CPU seconds beside it. Parts:

- ``tracks``: the tracker on the example clip;
- ``cameras``: cameras from fixed tracks of the example clip and of rendered sequences with parallax, rotation alone, no
  motion, zoom, a way there and back, two shots, and large movers; also with known intrinsics, with depth maps, and
  with a lens that is distorted;
- ``fusion``: the alignment and dense maps of saved predictions;
- ``run``: a whole ``reconstruct`` of the example clip with the bundled model, array by array;
- ``samples``, ``clips`` (given as arguments): cameras of recorded sequences under ROOT, whole runs of more videos.

``--cache`` keeps what is rendered and tracked: rendering takes longer than all solves together. With ``--against`` the
exit status is 1 when anything differs, and each difference is printed with the figures of both. One numerical thread:
sums in another order are other numbers. Two runs of the same code must agree; start with that.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

HERE = Path(__file__).resolve().parent
sys.path[:0] = [p for p in (str(HERE.parent),) if p not in sys.path]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from geo4d.cameras.solve import fit_cameras, solve_with_depth  # noqa: E402
from geo4d.cameras.types import CameraSolveConfig, MotionCameras  # noqa: E402
from geo4d.datasets.catalogue import load_reader  # noqa: E402
from geo4d.fusion import AlignConfig, align, iter_dense  # noqa: E402
from geo4d.fusion.align import objective_on_all_pixels  # noqa: E402
from geo4d.geometry.fit import fit_similarity  # noqa: E402
from geo4d.geometry.poses import rotation_angle, transform  # noqa: E402
from geo4d.run.reconstruct import reconstruct  # noqa: E402
from geo4d.synthetic.camera_paths import CameraKind  # noqa: E402
from geo4d.synthetic.predictions import iter_predictions  # noqa: E402
from geo4d.synthetic.render import make_scene, render_clip  # noqa: E402
from geo4d.synthetic.scene import SceneConfig, SceneKind  # noqa: E402
from geo4d.tracks.follow import track_points  # noqa: E402
from geo4d.tracks.types import Tracks  # noqa: E402
from geo4d.types import Prediction  # noqa: E402
from geo4d.video.io import Video, fit_size  # noqa: E402

EXAMPLE = HERE.parent / "examples" / "clip.mp4"
SIZE = (216, 360)
"""(height, width) of the rendered pictures."""

RENDERED: dict[str, tuple[int, SceneKind, CameraKind, int, bool]] = {
    "parallax": (8_100_001, "room", "dolly", 16, False),
    "walk": (8_100_002, "object_on_ground", "handheld", 16, False),
    "rotation": (8_100_003, "street", "pan", 12, False),
    "static": (8_100_004, "object_on_ground", "static", 10, False),
    "zoom": (8_100_005, "room", "handheld", 12, True),
    "movers": (8_100_006, "flying", "orbit", 16, False),
}
"""Name -> seed, layout, camera, frames, zoom. None of these seeds is in a set that reports results."""

SAMPLES = {
    "tartanair": "tartanair-office-sample",
    "hololens": "hololens-dvmvs-sample",
    "tum": "tum-fr1-rpy-sample",
    "iclnuim": "iclnuim-livingroom1-sample",
}


def digest(*values: Any) -> str:
    """SHA-256 over arrays (type, shape, bytes) and the text of everything else."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype}{value.shape}".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        else:
            found.update(repr(value).encode())
    return found.hexdigest()


@dataclass(frozen=True)
class Sequence:
    """Tracks of a sequence and, where it is known, its truth: cameras [T, 4, 4], [T, 3, 3], depth [T, H, W]."""

    tracks: Tracks
    c2w: Tensor | None = None
    intrinsics: Tensor | None = None
    depth: Tensor | None = None


def load_sequence(name: str, make: Callable[[], Sequence], cache: Path | None) -> Sequence:
    """From the cache, or made and put there."""
    path = None if cache is None else cache / f"{name}.pt"
    if path is None or not path.exists():
        made = make()
        if path is None:
            return made
        path.parent.mkdir(parents=True, exist_ok=True)
        truth = {k: v for k, v in vars(made).items() if k != "tracks"}
        torch.save({"tracks": vars(made.tracks), **truth}, path)
    found = torch.load(path, weights_only=True)
    fields = found.pop("tracks")
    return Sequence(Tracks(**{**fields, "size": tuple(fields["size"])}), **found)


def rendered(name: str) -> Sequence:
    """One sequence of ``RENDERED``, tracked."""
    seed, kind, camera, num_frames, zoom = RENDERED[name]
    config = SceneConfig(seed, kind, camera, num_frames, 12.0, SIZE[0] / SIZE[1], zoom, "heldout")
    clip = render_clip(make_scene(config), SIZE)
    return _tracked(clip.rgb, clip.c2w.double(), clip.intrinsics.double(), clip.depth)


def there_and_back() -> Sequence:
    """The walk, then the same pictures in reverse: every place is visited twice."""
    seed, kind, camera, num_frames, _ = RENDERED["walk"]
    config = SceneConfig(seed, kind, camera, num_frames, 12.0, SIZE[0] / SIZE[1], False, "heldout")
    clip = render_clip(make_scene(config), SIZE)
    order = [*range(num_frames), *range(num_frames - 2, -1, -1)]
    return _tracked(clip.rgb[order], clip.c2w.double()[order], clip.intrinsics.double()[order], None)


def two_shots() -> Sequence:
    """Half of one sequence, then half of another: a cut."""
    parts = []
    for name, count in (("parallax", 9), ("static", 6)):
        seed, kind, camera, num_frames, _ = RENDERED[name]
        config = SceneConfig(seed, kind, camera, num_frames, 12.0, SIZE[0] / SIZE[1], False, "heldout")
        parts.append(render_clip(make_scene(config), SIZE).rgb[:count])
    return _tracked(torch.cat(parts), None, None, None)


def _tracked(rgb: Tensor, c2w: Tensor | None, K: Tensor | None, depth: Tensor | None) -> Sequence:
    return Sequence(track_points(frame.float() / 255 for frame in rgb), c2w, K, depth)


def example() -> Sequence:
    """The example clip, tracked at the size of a run."""
    with Video(EXAMPLE) as video:
        return Sequence(track_points(video.frames(fit_size(video.size, 640))))


def errors(motion: MotionCameras, truth: Sequence) -> dict[str, float]:
    """Largest rotation error (degrees), error of centres over the length of the path, relative focal error."""
    if truth.c2w is None or truth.intrinsics is None:
        return {}
    centres, wanted = motion.c2w[:, :3, 3].double(), truth.c2w[:, :3, 3].double()
    turn = motion.c2w[0, :3, :3].double().T @ motion.c2w[:, :3, :3].double()
    true_turn = truth.c2w[0, :3, :3].double().T @ truth.c2w[:, :3, :3].double()
    path = float((wanted[1:] - wanted[:-1]).norm(dim=1).sum())
    found = {
        "rotation_max_deg": math.degrees(float(rotation_angle(turn.mT @ true_turn).max())),
        "focal_error": float((motion.intrinsics[:, 0, 0] / truth.intrinsics[:, 0, 0] - 1).abs().median()),
    }
    if path > 1e-6 and bool(centres.any()):
        aligned = transform(fit_similarity(centres, wanted), centres)
        found["centre_error"] = float((aligned - wanted).square().sum(1).mean().sqrt()) / path
    return found


def camera_case(sequence: Sequence, solve: Callable[[Tracks], MotionCameras]) -> dict[str, Any]:
    """Digest of everything that a solve returns, its figures, and its seconds."""
    begin = time.process_time()
    motion = solve(sequence.tracks)
    seconds = time.process_time() - begin
    arrays = (motion.c2w, motion.intrinsics, motion.confidence, motion.points, motion.point_shot)
    shots = [tuple(vars(shot).values()) for shot in motion.shots]
    return {
        "sha256": digest(*arrays, motion.depth_range, motion.depth_scale, shots),
        "tracks": digest(sequence.tracks.track, sequence.tracks.frame, sequence.tracks.xy),
        "kinds": [shot.kind for shot in motion.shots],
        "focal": float(motion.intrinsics[:, 0, 0].median()),
        "confidence": float(motion.confidence.mean()),
        **errors(motion, sequence),
        "cpu_s": round(seconds, 2),
    }


Case = Callable[[], dict[str, Any]]


def track_cases(options: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """The tracker itself, never from the cache."""

    def run() -> dict[str, Any]:
        tracks = example().tracks
        return {"sha256": digest(tracks.track, tracks.frame, tracks.xy, tracks.starts_shot)}

    yield "tracks/example", run


def camera_cases(options: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """Cameras from fixed tracks."""

    def get(name: str) -> Sequence:
        makers: dict[str, Callable[[], Sequence]] = {
            "example": example,
            "there_and_back": there_and_back,
            "two_shots": two_shots,
        }
        return load_sequence(name, makers.get(name, lambda: rendered(name)), options.cache)

    plain = CameraSolveConfig()
    for name in ("example", *RENDERED, "there_and_back", "two_shots"):
        config = replace(plain, zoom=name == "zoom")
        yield (
            f"cameras/{name}",
            lambda name=name, config=config: camera_case(
                get(name), lambda tracks: fit_cameras(tracks, config=config)
            ),
        )

    def known() -> dict[str, Any]:
        sequence = get("walk")
        return camera_case(sequence, lambda tracks: fit_cameras(tracks, intrinsics=sequence.intrinsics))

    def with_prior() -> dict[str, Any]:
        sequence = get("parallax")
        assert sequence.intrinsics is not None
        prior = (1.05 * float(sequence.intrinsics[0, 0, 0]), 0.1)
        config = replace(plain, radial_prior=0.05)
        return camera_case(sequence, lambda tracks: fit_cameras(tracks, focal_prior=prior, config=config))

    def depth(factors: bool) -> dict[str, Any]:
        sequence = get("parallax")
        assert sequence.depth is not None
        assert sequence.intrinsics is not None
        factor = 1 + 0.2 * torch.sin(torch.arange(len(sequence.depth))) if factors else torch.ones(1)
        maps, K = sequence.depth * factor[:, None, None], sequence.intrinsics
        return camera_case(
            sequence, lambda tracks: solve_with_depth(tracks, maps, K, per_frame_scale=factors)
        )

    yield "cameras/known intrinsics", known
    yield "cameras/prior and lens", with_prior
    yield "cameras/depth", lambda: depth(False)
    yield "cameras/depth, scale per frame", lambda: depth(True)


def fusion_cases(options: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """Alignment and dense maps of predictions of a rendered scene, saved in the cache."""
    windows = [list(range(start, start + 12)) for start in (0, 4, 8, 12)]

    def predictions() -> list[Prediction]:
        path = None if options.cache is None else options.cache / "predictions.pt"
        if path is not None and path.exists():
            return [Prediction(**fields) for fields in torch.load(path, weights_only=True)]
        scene = make_scene(SceneConfig(8_100_011, "room", "dolly", 24, 12.0, 0.6, False, "heldout"))
        made = list(iter_predictions(scene, (60, 100), windows, seed=1, bad_windows=(2,)))
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save([vars(prediction) for prediction in made], path)
        return made

    def run(config: AlignConfig) -> dict[str, Any]:
        given = predictions()
        begin = time.process_time()
        alignment = align(given, num_frames=24, config=config)
        aligned = time.process_time() - begin
        maps = list(iter_dense(alignment, given))
        values = objective_on_all_pixels(alignment, given, lambda frame: maps[frame].depth).to_dict()
        fields = {k: v for k, v in vars(alignment).items() if isinstance(v, Tensor)}
        dense = [x for m in maps for x in (m.depth, m.confidence, m.dynamic)]
        return {
            "sha256": digest(*fields.values(), *dense, values, alignment.diagnostics),
            "objective": values["total"],
            "cpu_s": round(aligned, 2),
            "dense_cpu_s": round(time.process_time() - begin - aligned, 2),
        }

    yield "fusion/corrected", lambda: run(AlignConfig.corrected())
    yield "fusion/published", lambda: run(AlignConfig.published())
    yield "fusion/zoom", lambda: run(replace(AlignConfig.corrected(), focal="per_frame"))


def run_case(clip: Path) -> dict[str, Any]:
    """A whole run, array by array."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        result = reconstruct(clip, Path(folder) / "result", device="cpu")
        seconds = time.process_time() - begin
        arrays: dict[str, Any] = {
            name: np.asarray(value[:])
            for name in (
                "depth",
                "confidence",
                "dynamic",
                "intrinsics",
                "c2w",
                "reliable",
                "scene",
                "times_s",
            )
            if (value := getattr(result, name)) is not None
        }
    parts = {name: digest(array) for name, array in arrays.items()}
    return {"sha256": digest(parts), "arrays": parts, "cpu_s": round(seconds, 1)}


def whole_cases(options: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """The example clip with the bundled model."""
    yield "run/example", lambda: run_case(EXAMPLE)


def clip_cases(options: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """Whole runs of more videos."""
    for clip in options.clips:
        yield f"run/{clip.name}", lambda clip=clip: run_case(clip)


def sample_cases(options: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """Cameras of recorded sequences."""
    for reader_name, folder in SAMPLES.items() if options.samples is not None else ():

        def make(reader_name: str = reader_name, folder: str = folder) -> Sequence:
            reader = load_reader(reader_name)
            name, path = next(iter(reader.find(options.samples / folder).items()))
            sequence = reader.load(path, name)
            rgb = torch.from_numpy(np.asarray(sequence.rgb[:], np.float32))
            K = torch.from_numpy(np.asarray(sequence.intrinsics, np.float64))
            K[:, :2] *= rgb.shape[2] / sequence.size[1]
            c2w = torch.from_numpy(np.asarray(sequence.c2w, np.float64))
            return Sequence(track_points(rgb), c2w, K)

        yield (
            f"samples/{folder}",
            lambda folder=folder, make=make: camera_case(
                load_sequence(f"sample_{folder}", make, options.cache), fit_cameras
            ),
        )


PARTS = {
    "tracks": track_cases,
    "cameras": camera_cases,
    "fusion": fusion_cases,
    "run": whole_cases,
    "samples": sample_cases,
    "clips": clip_cases,
}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """One line for every case of ``after`` whose digest is another, or that ``before`` does not have."""
    lines = []
    for name, found in after.items():
        if name not in before:
            lines.append(f"{name}: not in the file compared with")
        elif found["sha256"] != before[name]["sha256"]:
            old = before[name]
            changed = [
                f"{k} {old.get(k)} -> {v}" for k, v in found.items() if k != "sha256" and old.get(k) != v
            ]
            lines.append(f"{name}: " + ("; ".join(changed) or "no figure changed"))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("--against", type=Path, help="JSON file of an earlier run to compare with")
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS), metavar="PART")
    parser.add_argument("--match", default="", help="only cases with this text in their name")
    parser.add_argument("--cache", type=Path, help="folder that keeps what is rendered and tracked")
    parser.add_argument("--samples", type=Path, help="folder with recorded sequences")
    parser.add_argument("--clips", type=Path, nargs="*", default=[], help="more videos to run whole")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    found = {}
    for part in options.only:
        for name, case in PARTS[part](options):
            if options.match not in name:
                continue
            found[name] = case()
            print(name, json.dumps(found[name]), flush=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "opencv": cv2.__version__}
    options.output.write_text(json.dumps({"versions": versions, "cases": found}, indent=1) + "\n")
    if options.against is None:
        return 0
    lines = differences(json.loads(options.against.read_text())["cases"], found)
    print("\n".join(lines) or f"all {len(found)} cases identical")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
