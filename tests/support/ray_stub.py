"""The model ``stub`` in the workers of a Ray that a command starts: name ``with_stub`` in RAY_RUNTIME_ENV_HOOK."""


def with_stub(runtime_env):
    return {**(runtime_env or {}), "worker_process_setup_hook": "tests.support.ray_stub.add_stub"}


def add_stub():
    from geo4d.models import base
    from tests.support.batch_stub import stub

    base.PREDICTORS["stub"] = stub.__name__
