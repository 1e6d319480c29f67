import itertools
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from geo4d.errors import OutputError
from geo4d.formats.locks import FileLock
from geo4d.models.layers import TimeConv
from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.model import TinyModel
from geo4d.models.tiny.weights import load_model
from geo4d.training.data import ReplayPlan, stack_clips
from geo4d.training.loop import LoopConfig, train
from geo4d.training.sources import as_float
from geo4d.training.tasks.tiny.batches import StreamedBatches, WindowSampling
from geo4d.training.tasks.tiny.tasks import DiffusionConfig, TinyDiffusion, fit_codec

LOOP = LoopConfig(num_steps=6, batch=4, warmup=2, precision="no", log_every=1, evaluate_every=0, save_every=3)


def task(source) -> TinyDiffusion:
    torch.manual_seed(3)
    model = TinyModel(smallest_preset())
    fit_codec(model.codec, source, 8)
    return TinyDiffusion(model, DiffusionConfig(seed=1))


def batches(source, batch: int = 4) -> StreamedBatches:
    return StreamedBatches(source, ReplayPlan(0, 8, 2), WindowSampling(2, (1, 2)), batch)


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_an_interrupted_run_goes_on_exactly(source, tmp_path) -> None:
    train(task(source), batches(source), LOOP, tmp_path / "whole", device="cpu")
    part = replace(LOOP, num_steps=3, decay=0.0)
    # The rate must not depend on where the run is cut, so both parts share a schedule without decay.
    whole = replace(LOOP, decay=0.0)
    train(task(source), batches(source), whole, tmp_path / "flat", device="cpu")
    train(task(source), batches(source), part, tmp_path / "cut", device="cpu")
    progress = train(task(source), batches(source), whole, tmp_path / "cut", resume=True, device="cpu")
    assert progress.step == 6
    assert losses(tmp_path / "cut") == losses(tmp_path / "flat")
    for name, value in load_model(tmp_path / "flat/weights/model.safetensors").state_dict().items():
        assert torch.equal(
            load_model(tmp_path / "cut/weights/model.safetensors").state_dict()[name], value
        ), name
    assert len(losses(tmp_path / "whole")) == 6
    assert list((tmp_path / "whole").glob("events.*"))


def test_a_run_is_not_overwritten(source, tmp_path) -> None:
    train(task(source), batches(source), replace(LOOP, num_steps=1), tmp_path, device="cpu")
    with pytest.raises(OutputError, match="already holds a run"):
        train(task(source), batches(source), LOOP, tmp_path, device="cpu")


def test_two_runs_do_not_share_a_folder(source, tmp_path) -> None:
    lock = FileLock.take(tmp_path / "lock")
    assert lock is not None
    with pytest.raises(OutputError, match="another process trains in"):
        train(task(source), batches(source), replace(LOOP, num_steps=1), tmp_path, device="cpu")
    assert not (tmp_path / "log.jsonl").exists()
    lock.release()  # as when that process was killed
    train(task(source), batches(source), replace(LOOP, num_steps=1), tmp_path, device="cpu")
    assert not (tmp_path / "lock").exists()


def test_micro_batches_give_the_gradient_of_the_whole_batch(source) -> None:
    """Equal up to what differs on purpose: the share of pure-noise samples is counted per micro-batch."""
    ours = task(source)
    ours.config = replace(ours.config, terminal_share=1.0)
    batch = next(batches(source)(0, 0, 1))
    ours(batch)[0].backward()
    whole = [p.grad.clone() for p in ours.trained().values() if p.grad is not None]
    ours.zero_grad()
    for piece in batch.split(2):
        (ours(piece)[0] / 2).backward()
    parts = [p.grad for p in ours.trained().values() if p.grad is not None]
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_accumulation_takes_the_steps_of_the_whole_batch(source, tmp_path) -> None:
    """The loop itself, with the optimiser: two micro-batches of two against one batch of four."""
    for folder, accumulate in (("one", 1), ("two", 2)):
        ours = task(source)
        ours.config = replace(ours.config, terminal_share=1.0)
        train(ours, batches(source), replace(LOOP, accumulate=accumulate), tmp_path / folder, device="cpu")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-3)


def test_half_precision_follows_full_precision(source, tmp_path) -> None:
    for folder, precision in (("full", "no"), ("half", "bf16")):
        loop = replace(LOOP, precision=precision)
        train(task(source), batches(source), loop, tmp_path / folder, device="cpu")
    full, half = losses(tmp_path / "full"), losses(tmp_path / "half")
    assert half != full
    assert half == pytest.approx(full, rel=0.03)
    state = load_file(tmp_path / "half/state/model.safetensors")
    assert all(value.dtype == torch.float32 for value in state.values())


@pytest.mark.parametrize(("precision", "kind"), [("bf16", TimeConv), ("no", torch.nn.Conv3d)])
def test_bfloat16_on_a_cpu_computes_convolutions_over_time_flat(source, tmp_path, precision, kind) -> None:
    """Their gradient over three axes ends the process for clips of two frames (torch 2.13)."""
    made = task(source)
    made.over_time = torch.nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0))
    train(made, batches(source), replace(LOOP, num_steps=1, precision=precision), tmp_path, device="cpu")
    assert type(made.over_time) is kind


def test_tensorboard_shows_losses_scores_and_pictures(source, tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ours = task(source)
    clips = [as_float(source(number)) for number in (50, 51)]
    ours.validation = [stack_clips(clips, [torch.arange(2)] * 2, [0, 1])]
    train(ours, batches(source), replace(LOOP, num_steps=4, evaluate_every=2), tmp_path, device="cpu")
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"loss", "latent", "rate", "gradient_norm", "eval/abs_rel", "eval/delta"} <= set(
        events.Tags()["scalars"]
    )
    assert [event.step for event in events.Scalars("eval/abs_rel")] == [2, 4]
    pictures = events.Images("window_0")
    assert [picture.step for picture in pictures] == [2, 4]
    # frame, truth, answer with evidence and without, side by side
    assert (pictures[0].height, pictures[0].width) == (32, 4 * 48)


def test_progress_and_exports_between_evaluations(source, tmp_path, caplog, monkeypatch) -> None:
    clock = itertools.count(0.0, 10.0)  # every look at the clock is ten seconds later
    monkeypatch.setattr("geo4d.training.loop.time.monotonic", lambda: next(clock))
    exported = []
    ours = task(source)
    export = ours.export
    ours.export = lambda folder: (exported.append(len(losses(tmp_path))), export(folder))  # type: ignore[method-assign]
    with caplog.at_level("INFO", "geo4d.training.loop"):
        train(ours, batches(source), replace(LOOP, export_every=2), tmp_path, device="cpu")
    assert exported == [2, 4, 6]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for row in rows:
        seconds = 4 / row["windows_per_s"]
        assert seconds % 10 == pytest.approx(0, abs=1e-3)
        assert row["left_s"] == pytest.approx(seconds * (6 - row["step"]), rel=1e-3)
    assert "step 5 of 6, 0:00:" in caplog.text
    assert "step 6 of 6, 0:00:00 left: loss" in caplog.text


def test_a_batch_must_divide(source, tmp_path) -> None:
    with pytest.raises(ValueError, match="divides over 1 processes with 3 micro-batches"):
        train(task(source), batches(source), replace(LOOP, accumulate=3), tmp_path, device="cpu")


def test_the_rate_rises_stays_and_falls() -> None:
    loop = LoopConfig(num_steps=100, batch=1, warmup=10, decay=0.2, learning_rate=1.0, final_rate=0.1)
    assert loop.rate(0) == pytest.approx(0.1)
    assert loop.rate(50) == 1.0
    assert loop.rate(90) == pytest.approx(0.55)
    assert loop.rate(100) == pytest.approx(0.1)


@pytest.mark.slow
def test_two_processes_repeat_one_with_the_double_batch(tmp_path) -> None:
    """torchrun with two CPU processes over gloo, against one process; same global batch."""
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import importlib.util, sys
            from dataclasses import replace
            from pathlib import Path
            path = {str(Path(__file__).with_name("conftest.py"))!r}
            spec = importlib.util.spec_from_file_location("pieces", path)
            pieces = importlib.util.module_from_spec(spec)
            sys.modules["pieces"] = pieces
            spec.loader.exec_module(pieces)
            spec = importlib.util.spec_from_file_location("loop_test", {str(Path(__file__))!r})
            loop_test = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loop_test)
            source = pieces.PlaneSource()
            ours = loop_test.task(source)
            ours.config = replace(ours.config, terminal_share=1.0)
            loop_test.train(ours, loop_test.batches(source), loop_test.LOOP, Path(sys.argv[1]), device="cpu")
            from accelerate.state import PartialState
            sys.stdout.write(f"processes {{PartialState().num_processes}}\\n")  # at once: two processes share the pipe
            sys.stdout.flush()
            """
        )
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command, folder, count in ((launch, "two", 2), ([sys.executable], "one", 1)):
        done = subprocess.run(
            [*command, str(script), str(tmp_path / folder)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count(f"processes {count}") == count, done.stdout
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=2e-3)
    one = load_model(tmp_path / "one/weights/model.safetensors").state_dict()
    two = load_model(tmp_path / "two/weights/model.safetensors").state_dict()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=2e-2, atol=2e-3)
