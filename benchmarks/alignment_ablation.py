"""What each modality adds: the corrected alignment with points only, with disparity, with ray maps, with all.

python benchmarks/alignment_ablation.py --scenario FILE... [--json OUT]
"""

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

HERE = Path(__file__).resolve().parent
sys.path[:0] = [p for p in (str(HERE), str(HERE.parent)) if p not in sys.path]

import numpy as np  # noqa: E402
from alignment_scenarios import ScenarioPredictions, load_scenario, score  # noqa: E402

from geo4d.fusion import AlignConfig, align, dense_reconstruction  # noqa: E402

VARIANTS = {
    "points": {"use_disparity": False, "use_trajectory": False},
    "points + disparity": {"use_trajectory": False},
    "points + rays": {"use_disparity": False},
    "all": {},
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenario", nargs="+", required=True, help="scenario files")
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    records: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for path in options.scenario:
        scenario = load_scenario(path)
        predictions = ScenarioPredictions(scenario)
        for name, change in VARIANTS.items():
            config = replace(AlignConfig.corrected(), principal_point=scenario.principal_point, **change)
            alignment = align(predictions, num_frames=scenario.num_frames, config=config)
            result = dense_reconstruction(alignment, predictions, with_moving=False)
            assert alignment.c2w is not None
            seen = np.nonzero(alignment.reliable.numpy())[0]
            depth = np.asarray(result.depth)
            scores = score(scenario, alignment.c2w, alignment.intrinsics[:, 0, 0], depth, seen)
            records[name].append({"scenario": scenario.name, **scores})  # type: ignore[dict-item]
    table = {}
    for name, rows in records.items():
        keys = ("ate", "rpe_trans", "rpe_rot_deg", "abs_rel", "delta_125")
        table[name] = {key: float(np.mean([row[key] for row in rows])) for key in keys}
        table[name]["focal_percent"] = float(np.mean([abs(row["focal_percent"]) for row in rows]))
        print(
            f"{name:20s} " + "  ".join(f"{key} {value:.4f}" for key, value in table[name].items()), flush=True
        )
    if options.json is not None:
        Path(options.json).write_text(json.dumps({"mean": table, "records": records}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
