"""Write the final weight file: the weights of the last stage, with the story of its training in the metadata.

    python benchmarks/record_weights.py WEIGHTS RUN [RUN ...] [--after FILE] [--note TEXT]
        -o geo4d/models/tiny/model.safetensors

RUN are the folders of ``geo4d train``, in order; their logs give steps, minutes and seeds. FILE: the weights that the
first RUN started from; its own story comes before.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from geo4d.models.tiny.weights import load_model, read_record, save_model


def story(runs: list[Path]) -> list[dict[str, Any]]:
    """Steps and minutes of every stage, in order."""
    rows = []
    for run in runs:
        # Weights are written at evaluations; later steps of an interrupted run are not in them.
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        last = [row for row in lines if any(name.startswith("eval/") for name in row)][-1]
        config = json.loads((run / "config.json").read_text())
        rows.append(
            {
                "stage": run.name,
                "steps": last["step"],
                "batch": config["batch"],
                "learning_rate": config["learning_rate"],
                "seed": config["seed"],
                "trainer_cpu_minutes": round(last["cpu_seconds"] / 60, 1),
                "wall_minutes": round(last["seconds"] / 60, 1),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--after", type=Path)
    parser.add_argument("--note", default="exponential moving average of the weights")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    before = [] if options.after is None else read_record(options.after).get("stages", [])
    record = {"stages": before + story(options.runs), "average": options.note}
    save_model(load_model(options.weights), options.output, record)
    options.output.chmod(0o644)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
