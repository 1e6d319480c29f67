import json

import numpy as np
import pytest

from geo4d.errors import OutputError
from geo4d.results.manifest import ARRAYS, MANIFEST
from geo4d.results.reader import load_result
from tests.support.stored import write_result


def test_incomplete_and_foreign_folders_are_refused(tmp_path):
    folder = write_result(tmp_path / "r")
    (folder / ARRAYS / "depth" / "c.1.0.0").unlink()
    with pytest.raises(OutputError, match="1 of 3 pieces of depth are missing"):
        load_result(folder)
    with pytest.raises(OutputError, match="found nothing"):
        load_result(tmp_path / "none")
    (tmp_path / "other").mkdir()
    with pytest.raises(OutputError, match="not a geo4d result"):
        load_result(tmp_path / "other")
    newer = write_result(tmp_path / "newer")
    manifest = json.loads((newer / MANIFEST).read_text())
    (newer / MANIFEST).write_text(json.dumps({**manifest, "version": 99, "geo4d": "9.9"}))
    with pytest.raises(OutputError, match=r"format 99, written by geo4d 9\.9; .* update geo4d"):
        load_result(newer)


def test_damaged_chunk_is_an_error_not_a_value(tmp_path):
    folder = write_result(tmp_path / "r")
    chunk = folder / ARRAYS / "depth" / "c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[20] ^= 255
    chunk.write_bytes(data)
    result = load_result(folder)
    assert np.isfinite(result.depth[0][1]).all()
    with pytest.raises(OutputError, match=r"c\.1\.0\.0 is damaged"):
        result.depth[1]
