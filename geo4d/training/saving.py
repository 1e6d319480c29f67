"""What a training run keeps on disk: the new one takes the old one's place only when it is whole."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from geo4d.errors import InputError, OutputError

PROGRESS = {"fsdp": "progress.json", "zero": "zero.json"}
"""Family of ways to train in parallel -> the file of a state that says how far it is; data parallel has none."""


@dataclass
class Progress:
    """Where a run stands; saved with its state."""

    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Steps taken, seconds of wall clock and of CPU."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.step = int(state["step"])
        self.seconds, self.cpu_seconds = float(state["seconds"]), float(state["cpu_seconds"])


def check_way(folder: Path, parallel: str) -> None:
    """Compare how a saved state was trained in parallel with how it is to go on; ZeRO's two stages read each other's.

    Args:
        folder: of the state; it need not be there.
    Raises:
        InputError: it was saved by a way that this one does not read.
    """
    if not folder.exists():
        return
    saved = next((way for way, file in PROGRESS.items() if (folder / file).is_file()), "ddp")
    if saved != parallel.rstrip("23"):
        named = "zero2 or zero3" if saved == "zero" else saved
        raise InputError(
            f"{folder} was saved with --parallel {named}, not {parallel}; go on with it, or start from its weights"
        )


def save_state(accelerator: Any, folder: Path, step: int) -> None:
    """Replace the saved state; a crash at any moment leaves a whole one."""
    with kept_on_failure(folder, "state", step, accelerator):
        accelerator.save_state(str(folder / "state.partial"))


def check_state(folder: Path, task: nn.Module) -> None:
    """Compare the shapes in a saved state with those of the task that is to go on from it.

    Args:
        folder: as ``save_state`` leaves it; one without a file of the model's weights is not looked into.
    Raises:
        InputError: it was saved for a network of other sizes; says where they differ.
    """
    file = folder / "model.safetensors"
    if not file.is_file():
        return
    shapes = {name: list(value.shape) for name, value in task.state_dict().items()}
    with safe_open(file, framework="pt") as state:
        for name in state.keys():  # noqa: SIM118  (it is no mapping)
            found = state.get_slice(name).get_shape()
            if name in shapes and shapes[name] != found:
                raise InputError(
                    f"expected a state of the same network in {folder}, its {name} is {found} and not {shapes[name]}; "
                    "go on with the --modalities and --start of the first run, or choose another folder"
                )


@contextmanager
def kept_on_failure(folder: Path, name: str, step: int, accelerator: Any = None) -> Iterator[None]:
    """Fill ``<name>.partial`` inside, which then takes the place of ``<name>``; on failure the old one stays.

    Args:
        accelerator: with it all processes fill together; without, this one alone.
    Raises:
        OutputError: it cannot be written.
    """
    target, partial, old = (folder / f"{name}{suffix}" for suffix in ("", ".partial", ".old"))
    main = accelerator is None or accelerator.is_main_process
    wait = (lambda: None) if accelerator is None else accelerator.wait_for_everyone
    try:
        if main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        wait()
        yield
        wait()
        if main:
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                os.replace(target, old)
            os.replace(partial, target)
            shutil.rmtree(old, ignore_errors=True)
        wait()
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch and safetensors tell a full disk by errors of their own.
        if isinstance(error, RuntimeError) and not _is_writing(error):
            raise
        shutil.rmtree(partial, ignore_errors=True)
        kept = f"the one saved before is kept in {target}" if target.exists() else "there is none from before"
        raise OutputError(
            f"cannot write the {name} of step {step} to {folder} ({error}); {kept}. Make room, then go on with --resume"
        ) from error


def _is_writing(error: BaseException) -> bool:
    """Whether torch's error is about the file it writes; others are none of the disk's."""
    return any(
        word in str(error) for word in ("PytorchStreamWriter", "file write", "unexpected pos", "iostream")
    )
