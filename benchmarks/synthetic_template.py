"""Mean disparity of training scenes: the trivial depth predictor of the synthetic benchmark.

    python benchmarks/synthetic_template.py [--clips 2000] [--output geo4d/evaluation/data/template.npz]

Clips of the training texture bank in the training mix; two frames each; disparity divided by its 98th percentile in
the clip. The stored array has unknown scale and shift, as every prediction that the benchmark aligns.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from geo4d.synthetic.render import iter_clips

SIZE = (36, 64)
SEED = 20_261_120


def mean_disparity(num_clips: int) -> np.ndarray:
    total = np.zeros(SIZE)
    for clip in islice(iter_clips(seed=SEED, size=SIZE, num_frames=2), num_clips):
        disparity = torch.where(clip.valid, 1 / clip.depth, 0.0).double().numpy()
        total += (disparity / np.quantile(disparity, 0.98)).clip(max=2).mean(0)
    return (total / num_clips).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=Path("geo4d/evaluation/data/template.npz"))
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        options.output, disparity=mean_disparity(options.clips), clips=options.clips, seed=SEED
    )
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
