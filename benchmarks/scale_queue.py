"""What measured costs mean for a thousand workers: a simulation of queues, beside bounds that need none.

    python benchmarks/scale_queue.py [--output FILE]

Nothing here runs a cluster. Each case takes service times that were measured on one machine (``source`` says where) and
lets them queue at what workers share:

- a coordinator: takes a lease, gives out a clip and writes its record, one after the other. Its seconds per clip are
  measured here, with as many leases in the folder as workers have clips, plus ``FILE_MS`` for each of ``FILE_CALLS``
  calls that a file system on a network answers;
- the store of sources and results: ``STORE_GBIT`` for all together, one transfer after the other;
- in one long video: the stages that are not spread, before and behind the windows.

Times of clips and windows vary by a factor (log-normal, spread ``SPREAD``). One in ``DEATHS`` tasks loses its worker half
way and is done again. ``bound`` is the largest of work / workers, of what the coordinators need and of what the store
needs, all by pen and paper; a simulated time below it would be a fault of the simulation and ends the script.
"""

import argparse
import heapq
import json
import math
import random
import sys
import tempfile
import time
import tracemalloc
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from geo4d.batch.leases import Leases, Presence  # noqa: E402
from geo4d.batch.ledger import Ledger  # noqa: E402

FILE_CALLS, FILE_MS = 12, 2.0
STORE_GBIT, SPREAD, DEATHS = 100.0, 0.4, 1000
WORKERS = (1, 10, 100, 1000)


@dataclass(frozen=True)
class Case:
    """What is queued.

    Attributes:
        tasks: clips, or stretches of windows.
        seconds: of one on its worker.
        megabytes: that a task reads from the store and writes to it.
        start_s: until a worker has its model.
        serial_s: before the first and behind the last task, in one process.
        per_coordinator: workers of one coordinator.
    """

    name: str
    source: str
    tasks: int
    seconds: float
    megabytes: float
    start_s: float
    serial_s: float = 0.0
    per_coordinator: int = 1000


CASES = (
    Case(
        "a million clips of 100 frames, bundled model, 1 CPU each",
        "45.7 CPU s: 2026-11-27-speed-depth-network.json; 1.3 MB a frame of 1024x576: 2026-11-20-clips.md",
        1_000_000,
        45.7,
        135.0,
        5.0,
        per_coordinator=16,
    ),
    Case(
        "the same, one coordinator for all",
        "as above; with --engine ray",
        1_000_000,
        45.7,
        135.0,
        5.0,
    ),
    Case(
        "10,000 frames, bundled model, windows in stretches of 4, 1 CPU each",
        "21.2 of 45.7 CPU s for 100 frames are windows: 2026-11-27-speed.md; the rest is not spread",
        313,
        21.2 / 12.5 * 4,
        4 * 4.0,
        5.0,
        serial_s=245.0 * 10,
    ),
    Case(
        "10,000 frames, Geo4D at released size, one H200 each, stride 4",
        "3.1 s a window, random weights: 2026-11-27-gpu.md; not spread: 0.2 s a frame as of the bundled model",
        625,
        3.1 * 4,
        4 * 4.0,
        60.0,
        serial_s=2000.0,
    ),
)


def coordinator_seconds(held: int, count: int = 200) -> float:
    """Seconds of a lease, its release and a record on this disk, while so many other leases are held."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ledger").mkdir()
        with Presence(folder / "c") as presence, Leases(folder / "leases", presence, 600.0) as leases:
            for i in range(held):
                (folder / "leases" / f"held-{i}.0").touch()
            ledger = Ledger(folder / "ledger")
            started = time.process_time()
            for i in range(count):
                lease = leases.take(f"clip-{i}")
                assert lease is not None
                ledger.write(f"clip-{i}", {"state": "done", "exit_code": 0, "ended": presence.now()})
                leases.release(lease)
            return (time.process_time() - started) / count


def ledger_costs(count: int = 20_000) -> dict[str, float]:
    """What a coordinator spends on the records of all clips: seconds to read them and to look for changes, and memory."""
    with tempfile.TemporaryDirectory() as name:
        record = {
            "state": "done",
            "exit_code": 0,
            "reason": "",
            "frames": 100,
            "verdict": "usable",
            "seconds": 45.7,
        }
        record |= {
            "source": "/data/videos/a-clip-of-a-usual-name.mp4",
            "stamp": [1, 2],
            "tries": [],
            "warnings": [],
        }
        record |= {
            "source_sha256": "0" * 64,
            "identity": "0" * 64,
            "coordinator": {"host": "a", "process": 1},
        }
        text = json.dumps({**record, "confidence_median": 0.5, "usable_share": 1.0, "reliable_share": 1.0})
        for i in range(count):
            (Path(name) / f"videos_a-clip-of-a-usual-name-{i:012x}.json").write_text(text)
        ledger, times = Ledger(Path(name)), []
        tracemalloc.start()
        for _ in range(2):
            started = time.process_time()
            ledger.scan()
            times.append((time.process_time() - started) / count)
        held = tracemalloc.get_traced_memory()[0] / count
        tracemalloc.stop()
    return {"first_scan_s_per_clip": times[0], "next_scan_s_per_clip": times[1], "bytes_per_clip": held}


def simulate(case: Case, workers: int, coordinator_s: float, rng: random.Random) -> dict[str, float]:
    """Let workers take tasks until none is left.

    Returns:
        seconds until the last one has ended, those of work, and the share of the time that a coordinator and the store
        were busy.
    """
    coordinators = max(1, math.ceil(workers / case.per_coordinator))
    transfer_s = case.megabytes * 8e-3 / STORE_GBIT
    free = [(case.start_s, worker) for worker in range(min(workers, case.tasks))]
    heapq.heapify(free)
    asked = [0.0] * coordinators
    store = work = end = 0.0
    sigma = math.sqrt(math.log(1 + SPREAD**2))
    for _ in range(case.tasks):
        now, worker = heapq.heappop(free)
        mine = worker % coordinators
        asked[mine] = max(asked[mine], now) + coordinator_s
        seconds = case.seconds * rng.lognormvariate(-(sigma**2) / 2, sigma)
        if rng.random() < 1 / DEATHS:
            seconds = 1.5 * seconds + case.start_s
        store = max(store, asked[mine]) + transfer_s
        done = store + seconds
        work += seconds
        end = max(end, done)
        heapq.heappush(free, (done, worker))
    bound = max(work / workers, case.tasks * coordinator_s / coordinators, case.tasks * transfer_s)
    assert end >= bound * (1 - 1e-9), (case.name, workers, end, bound)
    total = end + case.serial_s
    return {
        "hours": total / 3600,
        "bound_hours": (bound + case.serial_s) / 3600,
        "work_hours": (work + case.serial_s) / 3600,
        "speed_up": (work + case.serial_s) / total,
        "coordinator_busy": case.tasks * coordinator_s / coordinators / end,
        "store_busy": case.tasks * transfer_s / end,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    measured = {held: coordinator_seconds(held) for held in (1, 16, 1000)}
    print("coordinator, s per clip by leases held:", {k: round(v, 5) for k, v in measured.items()})
    ledger = ledger_costs()
    print("records of a coordinator:", {k: float(f"{v:.3g}") for k, v in ledger.items()})
    rows = []
    for case in CASES:
        print(case.name)
        for workers in WORKERS:
            held = min((h for h in measured if h >= workers), default=max(measured))
            spent = measured[held] + FILE_CALLS * FILE_MS / 1000
            found = simulate(case, workers, spent, random.Random(workers))
            rows.append({"case": case.name, "workers": workers, "coordinator_s": spent, **found})
            print("  ", workers, {name: float(f"{value:.3g}") for name, value in found.items()}, flush=True)
    result: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python benchmarks/scale_queue.py",
        "coordinator_s_by_leases_held": measured,
        "records_of_a_coordinator": ledger,
        "assumed": {
            "file_calls": FILE_CALLS,
            "file_ms": FILE_MS,
            "store_gbit": STORE_GBIT,
            "spread": SPREAD,
            "one_death_in": DEATHS,
        },
        "cases": [asdict(case) for case in CASES],
        "rows": rows,
    }
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
