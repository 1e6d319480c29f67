"""The runner: results carry protocol and hashes, resume by sequence, several processes, nothing dropped silently."""

import pytest

from geo4d.evaluation import run
from geo4d.evaluation.layouts import Layout
from geo4d.evaluation.protocols import PROTOCOLS
from tests.support.evaluated import settings


@pytest.mark.slow
def test_processes_give_the_same_numbers(dataset):
    root, predictions = dataset
    names = ("bent", "still")
    paths = {name: ("folder", str(root / name)) for name in names}
    plan = Layout("any", "any", PROTOCOLS["median"], ("abs_rel",), paths)
    alone = dict(run._run_all(plan, settings(predictions), list(names)))
    shared = dict(run._run_all(plan, settings(predictions, jobs=2), list(names)))
    for name in names:
        assert alone[name]["abs_rel"] == shared[name]["abs_rel"]
        assert alone[name]["files"] == shared[name]["files"]
