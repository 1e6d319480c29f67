import dataclasses

import pytest
from pydantic import ValidationError

from geo4d.config import RunConfig
from geo4d.export import ExportConfig
from geo4d.service.jobs import Job
from geo4d.service.schema import ExportOptions, JobOptions, JobView, form_schema


def test_every_option_is_one_of_the_package() -> None:
    assert set(JobOptions.model_fields) <= {field.name for field in dataclasses.fields(RunConfig)}
    assert set(ExportOptions.model_fields) <= {field.name for field in dataclasses.fields(ExportConfig)}


def test_no_option_names_a_place_on_the_disk_or_a_device() -> None:
    assert not {"weights", "times", "pictures", "device", "keep_windows"} & set(JobOptions.model_fields)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stride": 0},
        {"seed": 2**63},
        {"max_size": 10**9},
        {"output_size": "100000x100000"},
        {"x": 1},
        {"focal": "no"},
    ],
)
def test_nonsense(wrong) -> None:
    with pytest.raises(ValidationError):
        JobOptions.model_validate(wrong)


def test_only_what_is_given_is_passed_on() -> None:
    assert JobOptions.model_validate({"stride": "2"}).given() == {"stride": 2}
    assert ExportOptions.model_validate({"up": "z", "scale": "2"}).given() == {"up": "z", "scale": 2.0}


def test_a_view_tells_when_a_job_goes() -> None:
    job = Job(
        "0" * 32,
        "a.mp4",
        3,
        {"stride": 2},
        created_s=1.0,
        state="failed",
        ended_s=5.0,
        reason="why",
        warnings=("w",),
    )
    view = JobView.of(job, None, keep_s=10)
    assert (view.removed_s, view.reason, view.warnings, view.options) == (15, "why", ["w"], {"stride": 2})
    assert JobView.of(dataclasses.replace(job, ended_s=None), 4, keep_s=10).removed_s is None


def test_the_form_names_all_fields() -> None:
    schema = form_schema()["content"]["multipart/form-data"]["schema"]
    assert set(schema["properties"]) == {"file", "example", "url", *JobOptions.model_fields}
    assert schema["properties"]["stride"]["minimum"] == 1
    assert schema["properties"]["focal"]["enum"] == ["auto", "shared", "per_frame"]
