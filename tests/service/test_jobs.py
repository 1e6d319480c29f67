import json

import pytest

from geo4d.service.jobs import Job, file_name, source_of

ID = "0" * 32


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("clip.mp4", "clip.mp4"),
        ("../../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("/absolute/one.mov", "one.mov"),
        ("..", "clip"),
        (".", "clip"),
        ("", "clip"),
        (".hidden.mp4", "hidden.mp4"),
        ("a\0b.mp4", "a_b.mp4"),
        ("<img src=x onerror=alert(1)>.mp4", "_img src_x onerror_alert(1)_.mp4"),
        ("line\nfeed\r.mp4", "line_feed_.mp4"),
        ('quo"te;$(rm).mp4', "quo_te__(rm).mp4"),
        ("Über die Brücke.mp4", "Über die Brücke.mp4"),
        ("映画.mkv", "映画.mkv"),
        ("a.tar.", "a.tar"),
        ("x." + "y" * 40, "x"),
        ("\udcff.mp4", "_.mp4"),
    ],
)
def test_names_that_lie_in_their_folder(given, name, tmp_path) -> None:
    assert file_name(given) == name
    (tmp_path / name).write_bytes(b"")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_long_names_keep_their_suffix_and_fit() -> None:
    name = file_name("ü" * 300 + ".mp4")
    assert name.endswith(".mp4")
    assert 70 < len(name.encode()) <= 80


def test_a_record_there_and_back(tmp_path) -> None:
    job = Job(ID, "a.mp4", 5, {"stride": 2}, created_s=1.5, state="done", ended_s=3.0, warnings=("w",))
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
    assert job.is_ended
    assert source_of(tmp_path, job) == tmp_path / "source" / "a.mp4"


@pytest.mark.parametrize(
    "change",
    [
        {"state": "flying"},
        {"id": "../up"},
        {"id": 3},
        {"name": "../up"},
        {"created_s": None},
        {"options": []},
        {"starts": "x"},
    ],
)
def test_a_record_that_is_none(change) -> None:
    values = json.loads(json.dumps({**Job(ID, "a", 0, {}, created_s=0.0).to_json(), **change}))
    with pytest.raises(ValueError, match="record"):
        Job.from_json(values)


def test_a_record_that_lacks_something() -> None:
    with pytest.raises(ValueError, match="num_bytes"):
        Job.from_json({"id": ID, "name": "a"})
