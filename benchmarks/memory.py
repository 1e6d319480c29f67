"""Peak memory and time of a long clip against a short one: both must grow with the clip not at all, and linearly.

    python benchmarks/memory.py --json OUT

Writes 854x480 clips (MPEG-4) of a closed-form world, reconstructs each in a process of its own with a predictor that
returns the truth plus noise (``truth.py``), and prints peak memory, wall and processor time per frame.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CLIP_SIZE = (480, 854)
MODEL_SIZE = (96, 160)


def write_clip(path: Path, num_frames: int) -> None:
    """A clip of the closed-form world, enlarged to ``CLIP_SIZE``."""
    import av
    import cv2

    from tests.support.truth import BoxWorld

    world = BoxWorld(MODEL_SIZE)
    height, width = CLIP_SIZE
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 8_000_000
        for t in range(num_frames):
            small = (world.rgb(t).numpy() * 255).astype("uint8")
            frame = av.VideoFrame.from_ndarray(cv2.resize(small, (width, height)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def run_child(clip: Path, output: Path, output_size: str) -> None:
    """Reconstruct one clip and print what it took as JSON."""
    import torch

    import geo4d.run.reconstruct
    from tests.support.truth import BoxWorld, TruthPredictor

    torch.set_num_threads(1)
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started, cpu = time.perf_counter(), time.process_time()
    result = geo4d.reconstruct(
        clip, output, model=TruthPredictor(BoxWorld(MODEL_SIZE)), output_size=output_size, split_shots=True
    )
    report = {
        "frames": result.num_frames,
        "wall_seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "stages_cpu_seconds": result.diagnostics["cpu_seconds"],
        "idle_bytes": idle,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(report))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs=2, default=(300, 2000))
    parser.add_argument("--output-size", default="model")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(*options.child, options.output_size)
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for num_frames in options.frames:
            clip = Path(folder) / f"clip_{num_frames}.mp4"
            write_clip(clip, num_frames)
            command = [
                *(sys.executable, __file__, "--output-size", options.output_size),
                *("--child", str(clip), str(Path(folder) / f"out_{num_frames}")),
            ]
            row = json.loads(
                subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]
            )
            stored = sum(
                p.stat().st_size for p in (Path(folder) / f"out_{num_frames}").rglob("*") if p.is_file()
            )
            row["result_bytes_per_frame"] = stored / num_frames
            rows.append(row)
            print(
                f"{num_frames:5d} frames: peak {row['peak_bytes'] / 2**20:.0f} MiB "
                f"(idle {row['idle_bytes'] / 2**20:.0f}), {row['cpu_seconds'] / num_frames * 1e3:.1f} ms of CPU and "
                f"{row['wall_seconds'] / num_frames * 1e3:.1f} ms of wall time per frame",
                flush=True,
            )
    short, long = rows
    memory = long["peak_bytes"] / short["peak_bytes"]
    speed = {
        kind: (long[f"{kind}_seconds"] / long["frames"]) / (short[f"{kind}_seconds"] / short["frames"])
        for kind in ("cpu", "wall")
    }
    print(f"peak memory x {memory:.3f} (limit 1.10)")
    print(f"time per frame: CPU x {speed['cpu']:.3f}, wall x {speed['wall']:.3f} (limit 1.15)")
    if options.json:
        from geo4d.results.provenance import machine, versions

        options.json.write_text(
            json.dumps(
                {
                    "date": date.today().isoformat(),
                    "command": "python benchmarks/memory.py",
                    "clip_size": CLIP_SIZE,
                    "model_size": MODEL_SIZE,
                    "output_size": options.output_size,
                    "rows": rows,
                    "memory_ratio": memory,
                    "time_per_frame_ratio": speed,
                    "machine": machine(),
                    "versions": versions(),
                },
                indent=1,
            )
            + "\n"
        )
    return 0 if memory < 1.10 and speed["cpu"] < 1.15 else 1


if __name__ == "__main__":
    sys.exit(main())
