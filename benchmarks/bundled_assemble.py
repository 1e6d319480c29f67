"""The bundled model's file out of its network (today's file) and a newly trained depth network.

    python benchmarks/bundled_assemble.py DEPTH.safetensors -o model.safetensors --encoder FILE [--network FILE]

The spreads are not calibrated yet: ``geo4d train calibration --start`` does that.
"""

import argparse
from pathlib import Path

from bundled_train import start_model

from geo4d.models.tiny.weights import BUNDLED, save_model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("depth", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--network", type=Path, default=BUNDLED)
    options = parser.parse_args()
    model = start_model(options.encoder, depth=options.depth, network=options.network)
    save_model(model, options.output, {"depth": "benchmarks/bundled_train.py"})
    print(options.output, options.output.stat().st_size)


if __name__ == "__main__":
    main()
