"""GeometryCrafter's stages over two processes that really are two."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from geo4d.training.loop import train
from tests.support.trained import LOOP, batches, losses, maps_task

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from accelerate.state import PartialState
from geo4d.training.loop import train
from tests.support.trained import LOOP, batches, maps_task
from tests.training.tasks.geometrycrafter.conftest import WallOrder
loop = replace(LOOP, learning_rate=5e-4)
train(maps_task(Path(sys.argv[1])), batches(WallOrder), loop, Path(sys.argv[2]), device="cpu")
sys.stdout.write(f"processes {PartialState().num_processes}\\n")
sys.stdout.flush()
"""


@pytest.mark.slow
def test_two_processes_repeat_one_with_the_double_batch(start, order, tmp_path: Path) -> None:
    """torchrun with two CPU processes over gloo, against one process; same global batch."""
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4]), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(script), str(start), str(tmp_path / "two")],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout.count("processes 2") == 2
    train(maps_task(start), batches(order), replace(LOOP, learning_rate=5e-4), tmp_path / "one", device="cpu")
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 4
    # Means over valid pixels are taken in each process by itself, so that the runs differ a little.
    assert two == pytest.approx(one, rel=1e-2)
    assert one[0] != pytest.approx(one[2], rel=5e-2)
