"""What becomes a job and what is refused, with the words of the command line; nothing of a refused clip stays."""

import pytest

from geo4d.apps.cli import main
from geo4d.service import intake
from geo4d.service.intake import EXAMPLES, list_examples, read_options
from geo4d.service.refusals import Refusal
from tests.service.conftest import send, wait_ended
from tests.support.served import leftovers
from tests.video.clips import encode, pictures


def said(capsys, path) -> str:
    """What the command line says of a clip."""
    main(["reconstruct", str(path), "-o", str(path.parent / "out"), "--quiet"])
    return capsys.readouterr().err


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "picture of nothing", "page"])
def test_a_clip_that_is_none(kind, client, service, clip, tmp_path, capsys) -> None:
    path = tmp_path / "wrong.mp4"
    whole = clip.read_bytes()
    data = {
        "text": b"hello, I am no film\n" * 20,
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "picture of nothing": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "page": b"<html><script>alert(1)</script></html>" * 10,
    }[kind]
    path.write_bytes(data)
    answer = send(client, path)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["exit_code"] == 3
    assert str(service.store.folder) not in problem["detail"]
    line = said(capsys, path).replace(str(path), "wrong.mp4").removeprefix("error: ").strip()
    assert line.endswith(" ".join(problem["detail"].split()))
    assert leftovers(service.store.folder) == []


def test_names_that_lead_elsewhere(client, service, clip) -> None:
    for name in ("../../../../tmp/evil.mp4", "..\\..\\evil.mp4", "/etc/evil.mp4"):
        job = send(client, clip, name, stop=2).json()
        assert job["name"] == "evil.mp4"
        place = service.store.place(job["id"]) / "source"
        assert [entry.name for entry in place.iterdir()] == ["evil.mp4"]
        client.delete(f"/api/jobs/{job['id']}")


def test_more_frames_than_allowed(client, service, tmp_path) -> None:
    path = encode(tmp_path / "long.mp4", pictures(60))
    answer = send(client, path)
    assert answer.status_code == 413
    assert "at most 50 frames" in answer.json()["detail"]
    assert send(client, path, stop=51).status_code == 413
    for fields in ({"stop": 50}, {"start": 30}, {"stride": 2}):
        taken = send(client, path, **fields)
        assert taken.status_code == 201, taken.text
        client.delete(f"/api/jobs/{taken.json()['id']}")
    assert leftovers(service.store.folder) == []


def test_larger_than_allowed(client, service, clip) -> None:
    big = b"x" * (service.settings.max_bytes + 10)
    answer = client.post("/api/jobs", files={"file": ("a.mp4", big)})
    assert answer.status_code == 413
    assert "2 MB" in answer.json()["detail"]
    assert leftovers(service.store.folder) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stride": "0"}, "stride"),
        ({"stride": "two"}, "stride"),
        ({"start": "5", "stop": "3"}, "expected 0 <= start < stop"),
        ({"stop": "11"}, None),
        ({"start": "10"}, "no frame from 10 on"),
        ({"weights": "/etc/passwd"}, "unknown setting 'weights'"),
        ({"fov_deg": "nan"}, "fov_deg"),
        ({"output_size": "9999x9999"}, "output_size"),
        ({"example": "room.mp4"}, "got example and file"),
    ],
)
def test_settings(fields, words, client, clip, service) -> None:
    answer = send(client, clip, **fields)
    if words is None:
        assert answer.status_code == 201
        client.delete(f"/api/jobs/{answer.json()['id']}")
    else:
        assert answer.status_code == 422, answer.text
        assert words in answer.json()["detail"]
    assert leftovers(service.store.folder) == []


def test_options_are_read_from_text() -> None:
    fields = {"stride": "2", "split_shots": "false", "fov_deg": "60.5", "seed": "", "example": "x"}
    assert read_options(fields) == {"stride": 2, "split_shots": False, "fov_deg": 60.5}
    with pytest.raises(Refusal, match="expected some of start"):
        read_options({"device": "cuda"})


def test_what_is_no_form(client) -> None:
    assert client.post("/api/jobs", content=b"x").status_code == 415
    assert client.post("/api/jobs", data={"stride": "2"}).status_code == 415
    none = client.post("/api/jobs", files={"stride": (None, "2")})
    assert none.status_code == 422
    assert "expected one of a file 'file'" in none.json()["detail"]
    other = client.post("/api/jobs", files={"video": ("a.mp4", b"x")})
    assert other.status_code == 422


def test_an_example_is_a_clip(client, repository) -> None:
    (example,) = list_examples()
    assert intake._example(example.name) == (repository / "examples/clip.mp4").read_bytes()
    answer = client.post("/api/jobs", files={"example": (None, example.name), "stop": (None, "4")})
    assert answer.status_code == 201, answer.text
    assert wait_ended(client, answer.json()["id"])["summary"]["frames"] == 4
    wrong = client.post("/api/jobs", files={"example": (None, "../settings.py")})
    assert wrong.status_code == 422
    assert next(iter(EXAMPLES)) in wrong.json()["detail"]


def test_addresses_are_not_fetched_unless_allowed(client) -> None:
    answer = client.post("/api/jobs", files={"url": (None, "http://127.0.0.1/a.mp4")})
    assert answer.status_code == 403
    assert "--fetch-urls" in answer.json()["detail"]
