import pickle
import subprocess
import sys
from pathlib import Path

from geo4d.batch.jobs import CLIPS_JOB
from geo4d.batch.task import Task


def test_a_job_goes_to_processes_by_name_and_brings_no_torch() -> None:
    assert pickle.loads(pickle.dumps(CLIPS_JOB)) == CLIPS_JOB
    script = (
        "import pickle, sys\n"
        "job = pickle.loads(sys.stdin.buffer.read())\n"
        "loaded = 'torch' in sys.modules\n"
        "try:\n"
        "    job.load({'model': 'no such model'})\n"
        "except ValueError as error:\n"
        "    print(loaded, 'torch' in sys.modules, 'no such model' in str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(CLIPS_JOB), capture_output=True, timeout=60,
        cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert done.stdout.split() == [b"False", b"True", b"True"], done.stderr.decode()


def test_what_is_run_is_one_clip(monkeypatch) -> None:
    monkeypatch.setattr("geo4d.batch.one.run_clip", lambda *given: {"given": given})
    task = Task("a", "a.mp4", "out")
    assert CLIPS_JOB.run("held", task, print) == {"given": ("held", task, print)}
