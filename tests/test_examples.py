"""The example of an adapter, run in a process of its own as its page says; CI runs the other examples, too."""

import os
import subprocess
import sys


def test_the_adapter_finds_the_world_of_its_network(tmp_path, repository):
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(repository / "examples" / "adapter.py"), str(tmp_path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "depth is off by 0.0" in ran.stdout
    assert (tmp_path / "adapter").is_dir()
