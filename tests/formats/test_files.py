import json

import pytest

from geo4d.formats.files import copy_tree, write_json


def test_json_is_written_beside_and_renamed(tmp_path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "settings.json").symlink_to(tmp_path / "precious")
    write_json(tmp_path / "settings.json", {"name": "日本"})
    assert (tmp_path / "precious").read_text() == "mine"
    assert json.loads((tmp_path / "settings.json").read_bytes()) == {"name": "日本"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "settings.json"]


@pytest.mark.parametrize("linkable", [True, False])
def test_a_folder_is_copied_whole_on_any_disk(tmp_path, monkeypatch, linkable) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/x.bin").write_bytes(b"abc")
    (source / "y.json").write_text("{}")
    target.mkdir()
    if not linkable:
        monkeypatch.setattr(
            "geo4d.formats.files.os.link", lambda *_: (_ for _ in ()).throw(OSError("other disk"))
        )
    copy_tree(source, target)
    assert (target / "deep/er/x.bin").read_bytes() == b"abc"
    assert (target / "y.json").read_text() == "{}"
    assert ((target / "y.json").stat().st_ino == (source / "y.json").stat().st_ino) == linkable
