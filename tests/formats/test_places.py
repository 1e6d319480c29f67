import pytest

from geo4d.errors import InputError, OutputError
from geo4d.formats.places import Place


@pytest.fixture(params=["disk", "store"])
def place(request, tmp_path) -> Place:
    """A folder, and the same as an address of an object store that lives in memory."""
    if request.param == "disk":
        return Place(str(tmp_path))
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.store.clear()
    return Place("memory://bucket/clips")


def test_what_is_written_is_read_whole_and_in_parts(place: Place) -> None:
    assert not place.exists("a.bin")
    with place.write("a.bin") as file:
        file.write(b"0123")
        file.write(b"456789")
    assert place.exists("a.bin")
    assert place.size("a.bin") == 10
    assert place.read("a.bin") == b"0123456789"
    assert place.read("a.bin", 3) == b"3456789"
    assert place.read("a.bin", 3, 7) == b"3456"


def test_what_is_not_there_is_named_with_its_place(place: Place) -> None:
    for ask in (place.size, place.read):
        with pytest.raises(InputError, match=r"expected b\.bin in .*may be incomplete"):
            ask("b.bin")


def test_a_file_that_ends_early_says_where(place: Place) -> None:
    with place.write("a.bin") as file:
        file.write(b"0123")
    with pytest.raises(InputError, match=r"expected 9 bytes in a\.bin .*it ends at 4"):
        place.read("a.bin", 2, 9)


def test_only_addresses_are_remote() -> None:
    assert Place("s3://bucket/clips").remote
    assert not Place("/data/s3/clips").remote
    assert not Place("C:\\clips").remote


def test_a_file_on_disk_appears_when_it_is_complete(tmp_path) -> None:
    def half() -> None:
        with Place(str(tmp_path)).write("a.bin") as file:
            file.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_nobody_knows_is_refused() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(InputError, match="expected an object store that fsspec knows in nowhere://a"):
        Place("nowhere://a").exists("b")


@pytest.fixture
def s3(monkeypatch):
    """An S3 on loopback that fails when it is told to."""
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    monkeypatch.setattr("geo4d.formats.objects.time.sleep", lambda seconds: None)
    from tests.support.s3 import faulty_s3

    with faulty_s3() as proxy:
        yield proxy


def test_a_store_that_fails_now_and_then_is_asked_again_and_one_that_is_down_is_named(s3) -> None:
    place = Place("s3://bucket/clips")
    for method, kind in (("PUT", "503"), ("PUT", "lost")):
        s3.faults.append((method, "/clips/a.bin", kind))
    with place.write("a.bin") as file:
        file.write(bytes(range(250)))
    s3.faults.extend(("GET", "/clips/a.bin", kind) for kind in ("503", "short", "cut"))
    assert place.read("a.bin", 10, 90) == bytes(range(10, 90))
    assert s3.used == ["503", "lost", "503", "short", "cut"]
    with pytest.raises(InputError, match=r"expected 400 bytes in a\.bin .*it ends at 250"):
        place.read("a.bin", 200, 400)
    s3.faults.extend(("GET", "/clips/a.bin", "503") for _ in range(99))
    with pytest.raises(InputError, match=r"s3://bucket/clips could not give a\.bin, asked 4 times"):
        place.read("a.bin", 10, 90)
    s3.faults.clear()
    s3.faults.extend(("PUT", "", "503") for _ in range(99))
    with (
        pytest.raises(OutputError, match=r"could not take b\.bin, asked 4 times"),
        place.write("b.bin") as file,
    ):
        file.write(b"b")
    s3.faults.clear()
    assert not Place("s3://bucket/clips").exists("b.bin")
    with pytest.raises(OutputError, match="is the bucket there"), Place("s3://none/x").write("b.bin") as file:
        file.write(b"b")


def test_an_object_whose_maker_stops_does_not_appear() -> None:
    pytest.importorskip("fsspec")
    place = Place("memory://bucket/stopped")

    def half() -> None:
        with place.write("a.bin") as file:
            file.write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half()
    assert not place.exists("a.bin")
