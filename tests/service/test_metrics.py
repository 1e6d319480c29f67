import re

from geo4d.service.jobs import Job
from geo4d.service.metrics import TEXT, Metrics


def read(text: bytes) -> dict[str, float]:
    """By the rule of the text format: a name with labels, a space, a number; # begins a comment."""
    lines = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
    found = [re.fullmatch(r"([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)", line) for line in lines]
    assert all(found), lines
    return {match[1]: float(match[2]) for match in found}


def job(state: str, **more) -> Job:
    return Job("0" * 32, "a", 1, {}, created_s=0.0, state=state, **more)


def test_counts(tmp_path) -> None:
    metrics = Metrics()
    metrics.taken(100)
    metrics.taken(50)
    metrics.refused(429)
    done = job("done", started_s=10.0, ended_s=14.0, summary={"frames": 30}, exit_code=0)
    metrics.ended(done)
    metrics.ended(job("failed", exit_code=137))
    metrics.ended(job("cancelled"))
    metrics.ended(None)
    figures = read(metrics.render([done, job("queued"), job("queued")], {"ready": 2, "busy": 1}, tmp_path))
    expected = {
        "geo4d_jobs_accepted_total": 2,
        "geo4d_upload_bytes_total": 150,
        'geo4d_requests_refused_total{status="429"}': 1,
        'geo4d_jobs_ended_total{exit_code="137",state="failed"}': 1,
        'geo4d_jobs_ended_total{exit_code="",state="cancelled"}': 1,
        'geo4d_job_seconds_bucket{le="5.0"}': 1,
        'geo4d_job_seconds_bucket{le="1.0"}': 0,
        "geo4d_job_seconds_sum": 4,
        "geo4d_frames_total": 30,
        'geo4d_jobs{state="queued"}': 2,
        'geo4d_jobs{state="running"}': 0,
        'geo4d_workers{state="busy"}': 1,
    }
    assert {name: figures[name] for name in expected} == expected
    assert figures["geo4d_folder_free_bytes"] > 0
    assert TEXT.startswith("text/plain; version=0.0.4")


def test_services_do_not_share_their_figures(tmp_path) -> None:
    first, second = Metrics(), Metrics()
    first.taken(1)
    assert read(second.render([], {}, tmp_path))["geo4d_jobs_accepted_total"] == 0
