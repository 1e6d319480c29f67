import pytest

from geo4d.errors import InputError
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
