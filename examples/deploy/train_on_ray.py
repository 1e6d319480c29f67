"""One training run over the nodes of a Ray cluster, by Ray Train: a process for each GPU, the same run as with torchrun.

    python train_on_ray.py --workers 8 -- all --family geo4d -o /shared/runs/geo4d --shards s3://bucket/shards

What follows ``--`` is what follows ``geo4d train``. The folder of the run must lie where all nodes see it, under the same
path. Where a worker or its node dies, Ray Train starts all of them again, and they go on from the last saved state.
Needs the extras train, ray and remote, and Ray Train's own: ``pip install 'ray[train]'``.
"""

import argparse
import os
import sys


def train(config: dict[str, list[str]]) -> None:
    """What runs in every process: Ray has joined them, as torchrun would have."""
    from geo4d.apps.cli import main

    code = main(["train", *config["words"], "--resume"])  # --resume also begins
    if code:
        raise RuntimeError(f"geo4d train ended with exit code {code}")


def run() -> None:
    """Join the cluster of ``RAY_ADDRESS``, or start a Ray on this machine, and train."""
    here = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    words = sys.argv[here + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=1, help="processes over all nodes")
    parser.add_argument("--cpu", action="store_true", help="without GPUs, over gloo")
    parser.add_argument("--restarts", type=int, default=3, help="after deaths of workers")
    parser.add_argument("--storage", help="folder of Ray Train's own notes, seen by all nodes")
    options = parser.parse_args(sys.argv[1:here])

    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    TorchTrainer(
        train,
        train_loop_config={"words": words},
        scaling_config=ScalingConfig(num_workers=options.workers, use_gpu=not options.cpu),
        torch_config=TorchConfig(backend="gloo" if options.cpu else "nccl"),
        run_config=RunConfig(
            storage_path=options.storage and os.path.abspath(options.storage),
            failure_config=FailureConfig(max_failures=options.restarts),
        ),
    ).fit()


if __name__ == "__main__":
    run()
