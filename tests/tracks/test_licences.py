import logging
from dataclasses import dataclass

import pytest

from geo4d.tracks import licences
from geo4d.tracks.licences import NO_WEIGHTS, show_licence


@dataclass
class Thing:
    name: str
    licence: str


@pytest.fixture(autouse=True)
def nothing_shown(monkeypatch) -> None:
    monkeypatch.setattr(licences, "_shown", set())


def test_a_licence_is_said_once_for_each_name(caplog) -> None:
    for thing in (Thing("a", "CC BY-NC"), Thing("a", "CC BY-NC"), Thing("b", "MIT")):
        show_licence(thing)
    assert [record.getMessage() for record in caplog.records] == [
        "a: its weights come under: CC BY-NC",
        "b: its weights come under: MIT",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_without_weights_there_is_nothing_to_warn_of(caplog) -> None:
    caplog.set_level(logging.INFO)
    show_licence(Thing("sift", NO_WEIGHTS))
    assert [record.levelno for record in caplog.records] == [logging.INFO]
