"""Objects of a real S3 that answers badly, and of the store in memory."""

from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from geo4d.errors import InputError, MissingExtraError, OutputError
from geo4d.formats.objects import Objects, is_url, open_store
from tests.support.s3 import Proxy

CONTENT = bytes(range(256)) * 200


def plain(proxy: Proxy, path: str) -> bytes:
    """What the server itself has, without a line of ours."""
    credential = (
        "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    )
    request = Request(f"http://127.0.0.1:{proxy.behind}{path}", headers={"Authorization": credential})
    with urlopen(request) as answer:
        return answer.read()


def test_objects_are_written_listed_read_and_removed(s3, tmp_path: Path) -> None:
    objects = Objects("s3://bucket/some/where/", wait_s=0)
    assert objects.list() == {}
    assert objects.read("a") is None
    (tmp_path / "b").write_bytes(b"b")
    objects.write("a", CONTENT)
    objects.write_all([("deep/b", tmp_path / "b"), ("deep/c", tmp_path / "b")])
    assert objects.list() == {"a": len(CONTENT), "deep/b": 1, "deep/c": 1}
    assert plain(s3, "/bucket/some/where/a") == CONTENT
    Objects("s3://bucket/some/whereelse").write("x", b"x")  # begins like the prefix, and is not below it
    assert "x" not in str(objects.list())
    objects.remove(["a", "deep/c", "never"])
    assert objects.list() == {"deep/b": 1}
    assert objects.read("deep/b") == b"b"


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("PUT", "503"),
        ("PUT", "slow"),
        ("PUT", "lost"),
        ("GET", "503"),
        ("GET", "slow"),
        ("GET", "lost"),
        ("GET", "cut"),
    ],
)
def test_requests_that_fail_are_repeated(s3, kind: str, method: str) -> None:
    objects = Objects("s3://bucket/faults", wait_s=0)
    if method == "GET":
        objects.write(kind, CONTENT)
    s3.used.clear()
    count = 2
    s3.faults.extend([(method, f"/faults/{kind}", kind)] * count)
    if method == "PUT":
        objects.write(kind, CONTENT)
    assert objects.read(kind) == CONTENT
    assert s3.used == [kind] * count
    assert plain(s3, f"/bucket/faults/{kind}") == CONTENT


def test_a_store_that_never_answers_is_an_error_with_its_place(s3) -> None:
    objects = Objects("s3://bucket/down", requests=2, wait_s=0)
    s3.faults.extend([("PUT", "/down/a", "503")] * 99)
    try:
        with pytest.raises(OutputError, match=r"s3://bucket/down could not take a, asked 2 times"):
            objects.write("a", CONTENT)
    finally:
        s3.faults.clear()
    with pytest.raises(OutputError, match=r"no-such-bucket"):
        Objects("s3://no-such-bucket/a", requests=2, wait_s=0).write("a", b"")


def test_what_no_repetition_mends_is_said_at_once(monkeypatch) -> None:
    class NoCredentialsError(Exception):
        """As botocore names it."""

    objects, asked = Objects("memory://bucket/closed"), []

    def closed(path: str, *rest: object, **words: object) -> None:
        asked.append(path)
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(objects._store, "cat_file", closed)
    with pytest.raises(OutputError, match=r"locate credentials; check the address, and the credentials"):
        objects.read("a")
    assert len(asked) == 1


def test_addresses_are_told_from_paths_and_unknown_ones_are_refused(monkeypatch) -> None:
    core = pytest.importorskip("fsspec.core")
    assert is_url("s3://a/b")
    assert not is_url("/a/b")
    assert not is_url(Path("a"))
    with pytest.raises(InputError, match="s3://, gs://"):
        open_store("ftp://host/a")

    def missing(url):
        raise ImportError("Install gcsfs")

    monkeypatch.setattr(core, "url_to_fs", missing)
    with pytest.raises(MissingExtraError, match=r"gcsfs.*geo4d\[remote\]"):
        open_store("gs://bucket/a")
