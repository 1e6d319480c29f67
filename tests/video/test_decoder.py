import av

from geo4d.video.decoder import PYAV_TESTED, decoder_problem


def test_this_pyav_decodes_and_another_is_named(monkeypatch):
    assert decoder_problem() is None
    monkeypatch.setattr(av, "__version__", "99.0.0")
    low, high = PYAV_TESTED
    assert f"PyAV 99.0.0 is not among the tested versions ({low} <= version < {high})" in decoder_problem()
    monkeypatch.setattr(av, "__version__", f"{low}.0")

    def changed(*args, **kwargs):
        raise TypeError("open() got an unexpected keyword argument 'options'")

    monkeypatch.setattr(av, "open", changed)
    assert "does not work" in decoder_problem()
    assert "unexpected keyword argument" in decoder_problem()
