"""The share of the bundled network in its own result (``geo4d/models/tiny/vouched.py``) beside all and nothing of it.

    python benchmarks/vouched.py [--first 0] [--clips 12] [--root FOLDER_OF_SAMPLES] [--cache FOLDER]

Every clip is run once; for each of its windows the result is made with the network's layout as it is, with evidence alone
spread over the picture, with the share that left-out evidence vouches for, and with that share but all evidence on movers
(``geo4d/models/tiny/movers.py``). A table gives the share of pixels within 25 % of the truth after one factor for each
window: all, with evidence, without, and movers.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from confidence import render
from torch.nn import functional as F

import geo4d
from geo4d.evaluation.benchmarks import SAMPLES
from geo4d.evaluation.control import usable_evidence
from geo4d.evaluation.sequences import load_sequence
from geo4d.models.tiny import pipeline
from geo4d.types import EvidenceMaps, Window

SHARES = {"network": 1.0, "evidence": 0.0, "vouched": None, "all of movers": None}


def windows_of(rgb: np.ndarray, settings: dict[str, Any]) -> list[tuple[Window, EvidenceMaps | None, int]]:
    """What the predictor is asked in a default run."""
    asked: list[tuple[Window, EvidenceMaps | None, int]] = []
    plain = pipeline.TinyPredictor.predict

    def recording(self: Any, window: Window, *, seed: int, evidence: Any = None, **rest: Any) -> Any:
        asked.append((window, evidence, seed))
        return plain(self, window, seed=seed, evidence=evidence, **rest)

    with mock.patch.object(pipeline.TinyPredictor, "predict", recording):
        geo4d.reconstruct(rgb, output_size="model", **settings)
    return asked


def score(
    window: Window,
    evidence: EvidenceMaps,
    depth: torch.Tensor,
    moving: torch.Tensor | None,
    disparity: torch.Tensor,
) -> list[float]:
    """Shares within 25 %: all, with evidence, without, movers; NaN where there are no such pixels."""

    def at_size(maps: torch.Tensor) -> torch.Tensor:
        return F.interpolate(maps[:, None].float(), window.size, mode="nearest-exact")[:, 0]

    truth = at_size(depth[window.frame_indices])
    known = torch.isfinite(truth) & (truth > 0)
    found = 1 / disparity.clamp(min=pipeline.LEAST_DISPARITY)
    ratio = found * (truth / found)[known].median() / truth
    right = torch.maximum(ratio, 1 / ratio) < 1.25
    used = at_size(usable_evidence(evidence)[0]) > 0.5
    movers = torch.zeros_like(known) if moving is None else at_size(moving[window.frame_indices]) > 0.5
    parts = (known, known & used, known & ~used, known & movers)
    return [float(right[part].float().mean()) if bool(part.any()) else float("nan") for part in parts]


def measure(
    name: str, rgb: np.ndarray, depth: torch.Tensor, moving: torch.Tensor | None, **settings: Any
) -> list:
    """One row for each window with evidence."""
    rows = []
    model = pipeline.load()
    plain = pipeline.vouched_share
    for window, evidence, seed in windows_of(rgb, settings):
        if evidence is None:
            continue
        row: dict[str, Any] = {"clip": name, "window": window.index}
        for label, fixed in SHARES.items():

            def share(*arguments: Any, fixed: float | None = fixed, row: dict = row) -> torch.Tensor:
                row["share"] = float(plain(*arguments))
                return torch.tensor([row["share"] if fixed is None else fixed])

            given = replace(evidence, moving=None) if label == "all of movers" else evidence
            with mock.patch.object(pipeline, "vouched_share", share):
                found = model.predict(window, seed=seed, evidence=given).disparity
            row[label] = score(window, evidence, depth, moving, found)
        print(
            name,
            window.index,
            {k: np.round(v, 3).tolist() for k, v in row.items() if k != "clip"},
            flush=True,
        )
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first rendered clip")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--root", type=Path, help="folder of the samples; without it they are left out")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    cache = options.cache or Path(tempfile.mkdtemp())
    cache.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list] = {"rendered": [], "samples": []}
    for number in range(options.first, options.first + options.clips):
        clip = render(number, cache)
        groups["rendered"] += measure(
            str(number), clip["rgb"].numpy(), clip["depth"].float(), clip["dynamic"]
        )
    for name, (reader, _) in SAMPLES.items() if options.root is not None else ():
        sequence = load_sequence(reader, str(options.root / name), name)
        if sequence.rgb is None or sequence.depth is None or sequence.num_frames < 16:
            continue
        rgb = np.stack([np.asarray(sequence.rgb[t]) for t in range(sequence.num_frames)])
        rgb = rgb if rgb.dtype == np.uint8 else np.round(rgb * 255).clip(0, 255).astype(np.uint8)
        depth = torch.from_numpy(np.asarray(sequence.depth[:], np.float32))
        groups["samples"] += measure(name, rgb, depth, None, split_shots=False)
    result = {
        group: {label: np.nanmean([r[label] for r in rows], axis=0).round(4).tolist() for label in SHARES}
        for group, rows in groups.items()
        if rows
    }
    print(json.dumps(result, indent=1))
    if options.output:
        options.output.write_text(json.dumps(_plain({"means": result, "windows": groups}), indent=1) + "\n")


def _plain(value: Any) -> Any:
    """The same with null where a number is not one: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and np.isnan(value) else value


if __name__ == "__main__":
    main()
