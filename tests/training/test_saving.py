import pytest
from safetensors.torch import save_file
from torch import nn

from geo4d.errors import InputError, OutputError
from geo4d.training.saving import Progress, check_state, check_way, kept_on_failure, save_state


def fill(folder, text: str, error: Exception | None = None) -> None:
    with kept_on_failure(folder, "weights", 3):
        (folder / "weights.partial" / "a.txt").write_text(text)
        if error is not None:
            raise error


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_one_takes_the_old_ones_place(tmp_path) -> None:
    fill(tmp_path, "first")
    fill(tmp_path, "second")
    assert names(tmp_path) == ["weights"]
    assert (tmp_path / "weights/a.txt").read_text() == "second"


def test_leftovers_of_a_killed_run_are_cleared(tmp_path) -> None:
    for name in ("weights.partial", "weights.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rest.txt").write_text("rest")
    fill(tmp_path, "new")
    assert names(tmp_path) == ["weights"]
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), RuntimeError("[enforce fail] PytorchStreamWriter failed")],
)
def test_a_full_disk_keeps_what_was_there(tmp_path, error) -> None:
    fill(tmp_path, "good")
    with pytest.raises(OutputError, match=r"weights of step 3 .*the one saved before is kept in .*--resume"):
        fill(tmp_path, "half", error)
    assert names(tmp_path) == ["weights"]
    assert (tmp_path / "weights/a.txt").read_text() == "good"


def test_without_an_earlier_one_it_says_so(tmp_path) -> None:
    with pytest.raises(OutputError, match="there is none from before"), kept_on_failure(tmp_path, "state", 0):
        raise OSError("no room")
    assert names(tmp_path) == []


def test_errors_that_are_none_of_the_disks_pass(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), kept_on_failure(tmp_path, "state", 0):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(KeyError), kept_on_failure(tmp_path, "state", 0):
        raise KeyError("x")


class Processes:
    """An accelerator's part in a save, as one of two processes."""

    def __init__(self, is_main_process: bool) -> None:
        self.is_main_process = is_main_process
        self.waited = 0
        self.saved: list[str] = []

    def wait_for_everyone(self) -> None:
        self.waited += 1

    def save_state(self, path: str) -> None:
        self.saved.append(path)


def test_all_processes_save_and_the_main_one_alone_renames(tmp_path) -> None:
    main, other = Processes(True), Processes(False)
    save_state(other, tmp_path, 1)
    assert names(tmp_path) == []  # not its business
    save_state(main, tmp_path, 1)
    assert names(tmp_path) == ["state"]
    assert main.saved == other.saved == [str(tmp_path / "state.partial")]
    assert main.waited == other.waited == 3


def test_a_state_of_another_network_is_refused_with_what_differs(tmp_path) -> None:
    check_state(tmp_path, nn.Linear(3, 2))  # no weights there: nothing to compare
    save_file(nn.Linear(3, 2).state_dict(), tmp_path / "model.safetensors")
    check_state(tmp_path, nn.Linear(3, 2))
    with pytest.raises(InputError, match=r"weight is \[2, 3\] and not \[2, 4\]; go on with the --modalities"):
        check_state(tmp_path, nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("file", "saved", "reads", "refuses"),
    [
        ("model.safetensors", "ddp", ["ddp"], ["fsdp", "zero2", "zero3"]),
        ("progress.json", "fsdp", ["fsdp"], ["ddp", "zero2", "zero3"]),
        ("zero.json", "zero2 or zero3", ["zero2", "zero3"], ["ddp", "fsdp"]),
    ],
)
def test_a_state_of_another_way_is_refused(tmp_path, file, saved, reads, refuses) -> None:
    for way in (*reads, *refuses):
        check_way(tmp_path / "none", way)
    (tmp_path / file).write_text("{}")
    for way in reads:
        check_way(tmp_path, way)
    for way in refuses:
        with pytest.raises(InputError, match=f"saved with --parallel {saved}, not {way}; go on with it"):
            check_way(tmp_path, way)


def test_progress_goes_there_and_back() -> None:
    there = Progress(7, 1.5, 2.5)
    back = Progress()
    back.load_state_dict(there.state_dict())
    assert back == there
