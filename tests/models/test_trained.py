import json

import pytest

from geo4d.errors import CheckpointError
from geo4d.formats.hashes import sha256_of
from geo4d.models.trained import TRAINED, read_trained, write_trained


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/weights.bin").write_bytes(b"abc")
    (tmp_path / "config.json").write_text("{}")
    write_trained(tmp_path, {"family": "geometrycrafter", "stage": "unet"})
    return tmp_path


def test_every_file_is_recorded_but_the_record_itself(folder) -> None:
    record = read_trained(folder)
    assert record is not None
    assert record["family"] == "geometrycrafter"
    assert record["sha256"] == {
        name: sha256_of(folder / name) for name in ("config.json", "unet/weights.bin")
    }
    write_trained(folder, {"family": "geometrycrafter", "stage": "again"})
    again = read_trained(folder)
    assert again is not None
    assert again["sha256"] == record["sha256"]


def test_a_folder_without_a_record_was_not_trained_here(tmp_path) -> None:
    assert read_trained(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.pop("sha256"),
        lambda r: r.update(version=2),
        lambda r: r.update(format="other"),
        lambda r: r.update(family=3),
        lambda r: r["sha256"].update({"../outside": "0" * 64}),
        lambda r: r["sha256"].update({"/etc/passwd": "0" * 64}),
        lambda r: r["sha256"].update({"a": "short"}),
        lambda r: r.update(sha256=[]),
    ],
)
def test_damaged_and_foreign_records_are_refused(folder, change) -> None:
    record = json.loads((folder / TRAINED).read_text())
    change(record)
    (folder / TRAINED).write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="export the weights again"):
        read_trained(folder)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"' + "x" * 10])
def test_what_is_no_record_at_all(folder, text) -> None:
    (folder / TRAINED).write_text(text)
    with pytest.raises(CheckpointError, match="damaged"):
        read_trained(folder)
