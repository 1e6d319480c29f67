"""Foreign files are named for what they are."""

import struct
from pathlib import Path

import pytest

from geo4d.errors import CheckpointError
from geo4d.models.store.looks import describe_keys
from geo4d.models.store.reading import read_state


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>confirm download</html>", "web page"),
        (b"\x80\x02}q\x00.", "bare pickle"),
        (b"\x1f\x8b\x08\x00" + b"\0" * 600, "archive"),
        (b"hello, this is text", "not a weight file"),
        (b"PK\x03\x04" + b"\0" * 100, "not a readable PyTorch file"),
        (struct.pack("<Q", 2**62) + b"{}", "not a readable safetensors"),
        (struct.pack("<Q", 20) + b'{"a":{"dtype":"F32"', "not a readable safetensors"),
    ],
)
def test_what_is_no_weight_file_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_state(path)


def test_look_alikes() -> None:
    assert "point-map codec" in describe_keys(["model.decoder_adaptor.conv_out.weight"])
    assert "diffusers" in describe_keys(["down_blocks.0.resnets.0.conv1.weight"])
    assert "nothing known" in describe_keys(["x"])
    assert "empty" in describe_keys([])
