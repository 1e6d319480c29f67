"""The API from outside: what a client sends and gets, at every address."""

import io
import json
import re
import zipfile

import numpy as np
import pytest

import geo4d
from geo4d.service.app import PAGE
from geo4d.service.exports import export_names
from tests.service.conftest import send, wait_ended
from tests.support.served import leftovers


def test_a_clip_becomes_a_job_with_plan_and_result(done) -> None:
    assert (done["state"], done["exit_code"], done["reason"]) == ("done", 0, "")
    assert done["name"] == "box.mp4"
    assert done["plan"]["frames"] == 10
    assert done["plan"]["licence"] == "as the package"
    assert any("licence" in line or "as the package" in line for line in done["plan"]["lines"])
    assert done["summary"]["verdict"] == "usable"
    assert done["summary"]["size"] == [40, 24]
    assert done["removed_s"] == pytest.approx(done["ended_s"] + 24 * 3600)


def test_the_result_is_that_of_a_run_on_the_command_line(done, service, clip, tmp_path) -> None:
    from tests.support.served import stub_run

    single = geo4d.reconstruct(clip, tmp_path / "single", **stub_run())
    ours = geo4d.load(service.store.place(done["id"]) / "result")
    # Numbers of threads differ, and with them the order of sums.
    np.testing.assert_allclose(ours.depth[3], single.depth[3], rtol=1e-3)
    np.testing.assert_allclose(ours.c2w[9], single.c2w[9], atol=1e-3)


def test_events_tell_of_the_job_until_its_end(client, clip) -> None:
    id = send(client, clip, stride=2).json()["id"]
    with client.stream("GET", f"/api/jobs/{id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        jobs = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert {job["id"] for job in jobs} == {id}
    assert jobs[-1]["state"] == "done"
    assert jobs[-1]["summary"]["frames"] == 5
    assert jobs[-1]["options"] == {"stride": 2}


@pytest.mark.parametrize("name", export_names())
def test_every_export_is_there(name, done, client) -> None:
    path = f"/api/jobs/{done['id']}/exports/{name}"
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    words = re.fullmatch(r'attachment; filename="box-(\w+)(\.\w+)"', answer.headers["content-disposition"])
    assert words, answer.headers["content-disposition"]
    assert words[1] == name
    if words[2] == ".zip":
        archive = zipfile.ZipFile(io.BytesIO(answer.content))
        assert archive.testzip() is None
        assert all(one.startswith("box/") and ".." not in one for one in archive.namelist())
    again = client.post(path).json()
    assert (again["state"], again["num_bytes"]) == ("ready", len(answer.content))
    part = client.get(path, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, answer.content[2:6])


def test_an_export_with_options(done, client) -> None:
    numbers = [
        client.get(f"/api/jobs/{done['id']}/exports/tum", params=query).text for query in ({}, {"scale": 3})
    ]
    first, scaled = (
        np.array([line.split() for line in text.splitlines() if not line.startswith("#")], float)
        for text in numbers
    )
    np.testing.assert_allclose(scaled[:, 1:4], 3 * first[:, 1:4], atol=1e-5)
    wrong = client.get(f"/api/jobs/{done['id']}/exports/usd", params={"up": "camera"})
    assert wrong.status_code == 422
    assert "expected up out of y, z" in wrong.json()["detail"]


def test_a_result_elsewhere_has_its_colours(done, client, tmp_path) -> None:
    data = client.get(f"/api/jobs/{done['id']}/exports/result").content
    zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path)
    assert (tmp_path / "box/source/box.mp4").is_file()
    result = geo4d.load(tmp_path / "box/result")
    assert result.num_frames == 10
    assert result.rgb is not None
    assert 0 < float(np.mean(result.rgb[0])) < 1


def test_previews_fit_their_index(done, client) -> None:
    base = f"/api/jobs/{done['id']}/preview"
    index = client.get(f"{base}/index.json").json()
    frames, points = client.get(f"{base}/frames.bin"), client.get(f"{base}/points.bin")
    assert len(frames.content) == index["frames"][-1][-1]
    assert len(points.content) == 16 * index["frame_points"][-1]
    assert client.get(f"{base}/thumb.jpg").headers["content-type"] == "image/jpeg"
    assert client.get(f"{base}/manifest.json").status_code == 422
    assert client.get(f"{base}/..%2f..%2fjob.json").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("GET", "/events"),
        ("GET", "/preview/index.json"),
        ("GET", "/exports/ply"),
        ("POST", "/exports/ply"),
    ],
)
def test_a_job_that_is_not_there(method, path, client) -> None:
    for id in ("f" * 32, "nothing"):
        answer = client.request(method, f"/api/jobs/{id}{path}")
        assert answer.status_code == 404
        assert "no such job" in answer.json()["detail"]


def test_what_cannot_be_done_with_a_job(done, client) -> None:
    assert client.post(f"/api/jobs/{done['id']}/cancel").status_code == 409
    wrong = client.get(f"/api/jobs/{done['id']}/exports/obj")
    assert wrong.status_code == 404
    assert "expected one of result, report, npz" in wrong.json()["detail"]


def test_a_job_is_listed_and_deleted(client, clip, service) -> None:
    id = wait_ended(client, send(client, clip, stop=3).json()["id"])["id"]
    assert client.get("/api/jobs").json()["jobs"][0]["id"] == id
    assert client.delete(f"/api/jobs/{id}").status_code == 204
    assert id not in [job["id"] for job in client.get("/api/jobs").json()["jobs"]]
    assert not service.store.place(id).exists()


def test_the_page_and_nothing_else_of_the_package(client) -> None:
    assert "<title>geo4d</title>" in client.get("/").text
    for name in PAGE:
        answer = client.get(f"/page/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(
            {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg"}[
                name.split(".")[-1]
            ]
        )
    for name in ("../app.py", "..%2fapp.py", "app.py", "examples%2froom.mp4", "%2e%2e/settings.py"):
        assert client.get(f"/page/{name}").status_code == 404


def test_the_page_takes_nothing_from_elsewhere(client) -> None:
    for name in PAGE:
        text = (
            client.get(f"/page/{name}")
            .text.replace("http://www.w3.org/2000/svg", "")
            .replace('placeholder="https://"', "")
        )
        assert "http" not in text.replace("https:// or", ""), name
    headers = client.get("/").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_about_health_and_figures(client, done) -> None:
    about = client.get("/api/about").json()
    assert about["model"]["licence"] == "as the package"
    assert about["limits"]["max_frames"] == 50
    assert [row["name"] for row in about["exports"]] == export_names()
    health = client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    figures = dict(re.findall(r"^(geo4d\S+) ([\d.e+]+)$", client.get("/metrics").text, re.M))
    assert float(figures['geo4d_jobs{state="done"}']) >= 1
    assert float(figures["geo4d_frames_total"]) >= 10
    assert float(figures['geo4d_workers{state="ready"}']) == 1
    before = float(figures.get('geo4d_requests_refused_total{status="404"}', 0))
    client.get("/api/jobs/none")
    text = client.get("/metrics").text
    assert f'geo4d_requests_refused_total{{status="404"}} {before + 1}' in text


def test_nothing_of_uploads_is_left(client, service) -> None:
    assert leftovers(service.store.folder) == []


def test_plain_refusals_have_the_same_form(client) -> None:
    for method, path, status in (("GET", "/nowhere", 404), ("PUT", "/api/jobs", 405)):
        answer = client.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()) == {"detail", "exit_code"}
