"""Leases: one holder at a time, whatever clocks say and whoever dies."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from geo4d.batch.leases import Leases, Presence

STALE_S = 60.0


@pytest.fixture
def meet(tmp_path):
    """Makes coordinators that share a folder; all on one machine unless told otherwise."""
    opened = []

    def make(stale_s: float = STALE_S, *, elsewhere: bool = False) -> Leases:
        presence = Presence(tmp_path / "coordinators").__enter__()
        if elsewhere:
            presence.about["host"] = f"host-{presence.id}"
        leases = Leases(tmp_path / "leases", presence, stale_s).__enter__()
        opened.append((presence, leases))
        return leases

    yield make
    for presence, leases in opened:
        leases.__exit__()
        presence.__exit__()


def age(leases: Leases, name: str, seconds: float) -> None:
    """Set a lease back by the file system's clock, as if its holder had stopped so long ago."""
    for path in leases.folder.glob(f"{name}.*"):
        then = leases.presence.now() - seconds
        os.utime(path, (then, then))


def test_one_coordinator_holds_a_clip(meet) -> None:
    first, second = meet(), meet(elsewhere=True)
    lease = first.take("clip")
    assert lease is not None
    assert lease.abandoned_by is None
    assert second.take("clip") is None
    assert first.take("clip") is None
    assert second.take("clip.2") is not None  # another clip, whatever its name
    first.release(lease)
    assert second.take("clip") is not None


def test_a_lease_that_stopped_is_taken_over_once(meet, monkeypatch) -> None:
    first = meet(elsewhere=True)
    lost = first.take("clip")
    age(first, "clip", STALE_S - 10)
    assert meet(elsewhere=True).take("clip") is None
    age(first, "clip", STALE_S + 10)
    others = [meet(elsewhere=True) for _ in range(8)]
    taken, gate = [], threading.Barrier(len(others))
    usual = Leases._abandoned

    def judge(leases: Leases, path: Path) -> dict | None:
        holder = usual(leases, path)
        gate.wait(60)  # all have found it abandoned before the first one takes it
        return holder

    monkeypatch.setattr(Leases, "_abandoned", judge)

    def go(leases: Leases) -> None:
        taken.append(leases.take("clip"))

    threads = [threading.Thread(target=go, args=(leases,), daemon=True) for leases in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [lease for lease in taken if lease is not None]
    assert len(winners) == 1
    assert winners[0].abandoned_by["coordinator"] == first.presence.id
    first.beat()
    assert lost.lost
    assert not winners[0].lost
    first.release(lost)  # one who was taken over removes nothing
    assert winners[0].path.exists()


def test_a_lease_is_lost_also_when_its_new_holder_died_before_it_tidied_up(meet) -> None:
    leases = meet()
    lease = leases.take("clip")
    leases.beat()
    assert not lease.lost
    (leases.folder / "clip.1").touch()
    leases.beat()
    assert lease.lost


def test_a_clip_that_was_given_back_is_free(meet) -> None:
    first, second = meet(elsewhere=True), meet(elsewhere=True)
    first.take("clip")
    age(first, "clip", 2 * STALE_S)
    again = second.take("clip")
    assert again.number == 1
    second.release(again)
    assert list(second.folder.iterdir()) == []
    assert first.take("clip").number == 0


@pytest.mark.parametrize("skew", [-1e6, 1e6])
def test_clocks_of_machines_do_not_matter(meet, monkeypatch, skew: float) -> None:
    first, second = meet(elsewhere=True), meet(elsewhere=True)
    held = first.take("clip")
    usual = time.time
    monkeypatch.setattr(time, "time", lambda: usual() + skew)
    assert second.take("clip") is None
    age(first, "clip", STALE_S + 10)
    first.beat()  # by the file system's clock, not by the machine's
    assert second.take("clip") is None
    age(first, "clip", STALE_S + 10)
    assert second.take("clip") is not None
    first.beat()
    assert held.lost


def test_leases_are_judged_by_the_file_systems_now(meet, monkeypatch) -> None:
    """A file server whose clock is an hour ahead of this machine's: nothing looks an hour old, nor new for an hour."""
    first, second = meet(elsewhere=True), meet(elsewhere=True)
    first.take("clip")
    age(first, "clip", -3600)
    monkeypatch.setattr(Presence, "now", lambda self: time.time() + 3600 + STALE_S / 2)
    assert second.take("clip") is None
    monkeypatch.setattr(Presence, "now", lambda self: time.time() + 3600 + STALE_S * 1.5)
    assert second.take("clip") is not None


def test_a_holder_is_alive_while_its_thread_beats(meet) -> None:
    first, second = meet(1.0, elsewhere=True), meet(1.0, elsewhere=True)
    lease = first.take("clip")
    before = lease.path.stat().st_mtime
    deadline = time.monotonic() + 60
    while lease.path.stat().st_mtime < before + 1.5 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert lease.path.stat().st_mtime >= before + 1.5
    assert second.take("clip") is None


def test_a_coordinator_killed_on_this_machine_is_known_at_once(meet, tmp_path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from geo4d.batch.leases import Leases, Presence\n"
        "root = Path(sys.argv[1])\n"
        "presence = Presence(root / 'coordinators').__enter__()\n"
        "assert Leases(root / 'leases', presence, 3600.0).__enter__().take('clip') is not None\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -9
    leases = meet(3600.0)
    if not leases.presence.about["kernel"]:
        pytest.skip("this system does not tell itself from others: only time shows who is dead")
    path = next((tmp_path / "leases").iterdir())
    holder = json.loads(path.read_text())
    path.write_text(json.dumps({**holder, "kernel": "of another machine"}))
    assert leases.take("clip") is None
    path.write_text(json.dumps(holder))
    assert leases.take("clip").abandoned_by == holder


def test_a_lease_without_readable_words_is_judged_by_its_age(meet) -> None:
    first, second = meet(elsewhere=True), meet()
    first.take("clip").path.write_text("")
    assert second.take("clip") is None
    age(first, "clip", STALE_S + 10)
    assert second.take("clip").abandoned_by == {}


def test_a_holder_that_cannot_reach_its_lease_counts_it_as_lost_in_time(meet, monkeypatch) -> None:
    leases = meet()
    lease = leases.take("clip")

    def unreachable(path, *rest):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("geo4d.batch.leases.os.utime", unreachable)
    leases.beat()
    assert not lease.lost
    lease.beaten -= STALE_S + 1
    leases.beat()
    assert lease.lost


def test_leaving_gives_everything_back(tmp_path) -> None:
    with Presence(tmp_path / "c") as presence, Leases(tmp_path / "l", presence, STALE_S) as leases:
        assert leases.take("a") is not None
        assert presence.others() == 0
    assert not any(Path(tmp_path / "l").iterdir())
    assert not any(Path(tmp_path / "c").iterdir())
