import json

from geo4d.formats.files import write_json


def test_json_is_written_beside_and_renamed(tmp_path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "settings.json").symlink_to(tmp_path / "precious")
    write_json(tmp_path / "settings.json", {"name": "日本"})
    assert (tmp_path / "precious").read_text() == "mine"
    assert json.loads((tmp_path / "settings.json").read_bytes()) == {"name": "日本"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "settings.json"]
