"""The API against its own description: schemathesis makes requests of every kind from it, and compares the answers."""

import pytest

from geo4d.service.access import Access
from geo4d.service.app import create_app
from geo4d.service.settings import ServiceSettings

schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

EXAMPLES = 10
"""Requests of an operation."""


def modes(operation) -> list:
    """Requests that fit the description, and ones that do not where it leaves room for that."""
    has_room = len(operation.query) or len(operation.body)
    return list(schemathesis.GenerationMode) if has_room else [schemathesis.GenerationMode.POSITIVE]


@pytest.fixture(scope="module")
def operations(service) -> dict:
    access = Access(ServiceSettings(names=("testserver",)), None)
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(service, access))
    return {
        f"{one.method.upper()} {one.path}": one
        for one in (found.ok() for found in schema.get_all_operations())
    }


def test_every_answer_is_as_described(operations, done) -> None:
    assert {"POST /api/jobs", "GET /api/jobs/{job}/events", "DELETE /api/jobs/{job}", "GET /health"} <= set(
        operations
    )
    for name, operation, mode in [(n, one, mode) for n, one in operations.items() for mode in modes(one)]:
        print(name, mode)  # shown where it fails

        @settings(
            max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
            phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
        def agree(case, real) -> None:
            if "job" in case.path_parameters and real and case.operation.method != "delete":
                case.path_parameters["job"] = done["id"]
            # That a form is well made does not mean that a clip is in it.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        agree()
    assert done["id"]
