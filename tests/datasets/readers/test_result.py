import numpy as np
import pytest

from geo4d.errors import InputError
from tests.support.recordings import load_only


def test_a_result_is_truth_where_it_is_reliable(tmp_path, monkeypatch):
    from dataclasses import replace

    from geo4d.results import reader
    from tests.support.stored import write_result

    write_result(tmp_path / "result")
    plain = load_only("result", tmp_path / "result")
    np.testing.assert_allclose(plain.rgb[2], 20 / 255, atol=1e-3)
    assert np.isposinf(plain.depth[0][0, 1])
    whole = reader.load_result(tmp_path / "result")
    known = replace(whole, reliable=np.array([True, False, True]))
    monkeypatch.setattr(reader, "load_result", lambda path: known)
    sequence = load_only("result", tmp_path / "result")
    assert sequence.scale_kind == whole.scale_kind
    np.testing.assert_array_equal(sequence.depth[2], whole.depth[2])
    assert np.isnan(sequence.depth[1]).all()
    assert np.isnan(sequence.c2w[1]).all()
    np.testing.assert_allclose(sequence.c2w[2], whole.c2w[2])
    np.testing.assert_array_equal(sequence.intrinsics, whole.intrinsics)
    assert "1 frames" in sequence.notes[0]
    monkeypatch.setattr(reader, "load_result", lambda path: replace(known, scene=np.array([0, 0, 1])))
    with pytest.raises(InputError, match="scenes"):
        load_only("result", tmp_path / "result")
    monkeypatch.setattr(reader, "load_result", lambda path: replace(known, rgb=None))
    with pytest.raises(InputError, match="no pictures"):
        load_only("result", tmp_path / "result")
