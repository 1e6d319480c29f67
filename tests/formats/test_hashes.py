import hashlib

import pytest

from geo4d.formats.hashes import hash_file, sha256_of


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ],
)
def test_digests_of_the_standard(tmp_path, data, digest) -> None:
    """The examples of FIPS 180-2."""
    (tmp_path / "a").write_bytes(data)
    assert sha256_of(tmp_path / "a") == digest


def test_a_file_longer_than_a_block_is_read_to_its_end(tmp_path) -> None:
    data = bytes(range(256)) * (2**22 // 256) + b"the rest"
    (tmp_path / "long").write_bytes(data)
    assert sha256_of(tmp_path / "long") == hashlib.sha256(data).hexdigest()


def test_several_files_feed_one_digest(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"ab")
    (tmp_path / "b").write_bytes(b"c")
    digest = hashlib.sha256()
    for name in ("a", "b"):
        hash_file(tmp_path / name, digest)
    assert digest.hexdigest() == hashlib.sha256(b"abc").hexdigest()
