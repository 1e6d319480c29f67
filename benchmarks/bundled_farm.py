"""Training clips of the generator, made on all cores of a machine in chunks that ``bundled_train.py`` reads.

    python benchmarks/bundled_farm.py FOLDER --processes 12 --minutes 12

Each chunk is one file of clips of one size, written under another name first. Clip ``i`` of a size is a function of its
seed and ``i``: chunks of two farms with the same seed and numbers are the same.
"""

import argparse
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import torch

from geo4d.synthetic.textures import TRAIN_SIZE, texture_bank
from geo4d.training.evidence import EvidenceConfig
from geo4d.training.sources import VALIDATION_OFFSET, SyntheticSource

SEED = 20261127
KINDS = (
    ((192, 320), 4), ((224, 288), 4), ((192, 320), 4), ((192, 320), 16), ((224, 288), 4), ((320, 192), 4),
    ((192, 320), 4), ((224, 288), 16),
)  # fmt: skip
"""Size and frames of the chunks, in turn: wide, as most cameras take them, and upright."""
FRAMES = 64
"""Of a chunk."""
PENDING_GB = 44


def source(size: tuple[int, int], num_frames: int, *, validation: bool = False) -> SyntheticSource:
    """The generator of one size."""
    evidence = EvidenceConfig(scale=0.25)
    if validation:
        fps = (2.0, 4.0, 6.0, 12.0)
        return SyntheticSource(SEED + VALIDATION_OFFSET, size, num_frames, fps, evidence=evidence)
    fps = (3.0, 4.0, 6.0, 8.0, 12.0, 16.0) if num_frames > 8 else (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    return SyntheticSource(
        SEED + num_frames,
        size,
        num_frames,
        fps,
        indoor=2.0,
        open_rooms=0.25,
        blank=0.4,
        pitched=0.25,
        evidence=evidence,
    )


def make_chunk(folder: Path, number: int) -> None:
    """Chunk ``number``, whose size follows from it."""
    size, num_frames = KINDS[number % len(KINDS)]
    made, count = source(size, num_frames), FRAMES // num_frames
    _write(folder / f"chunk_{number:06d}.pt", [vars(made(number * count + k)) for k in range(count)])


def _write(path: Path, clips: list[dict]) -> None:
    stacked = {name: torch.stack([clip[name] for clip in clips]) for name in clips[0]}
    partial = path.with_suffix(".partial")
    torch.save(stacked, partial)
    os.replace(partial, path)


def _work(folder: Path, worker: int, processes: int, first: int, ends: float) -> None:
    torch.set_num_threads(1)
    number = first + worker
    while time.time() < ends:
        if sum(p.stat().st_size for p in folder.glob("*.pt")) > PENDING_GB << 30:
            print(f"{PENDING_GB} GB lie in {folder}: no more clips", flush=True)
            return
        try:
            make_chunk(folder, number)
        except (
            RuntimeError
        ) as error:  # no acceptable draw of a scene (``make_scene``): the farm goes on without it
            print(f"chunk {number}: {error!r}", flush=True)
        number += processes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--first", type=int, default=0, help="number of the first chunk")
    parser.add_argument("--validation", type=int, default=48)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    ends = time.time() + 60 * options.minutes
    torch.set_num_threads(1)
    source(*KINDS[0])(0)  # compiled, and all textures drawn, before the processes part
    texture_bank("train").ensure(np.arange(TRAIN_SIZE))
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_work, args=(options.folder, w, options.processes, options.first, ends))
        for w in range(options.processes)
    ]
    for worker in workers:
        worker.start()
    for size in ((192, 320), (224, 288)):
        clips = [vars(source(size, 8, validation=True)(number)) for number in range(options.validation // 2)]
        _write(options.folder / f"validation_{size[0]}.pt", clips)
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
