import re
import sys

from geo4d.apps.commands import doctor


def test_doctor_knows_the_extras_of_the_project(repository):
    import tomllib

    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, packages in doctor.EXTRAS.items():
        assert sorted(re.split(r"[<>=]", package)[0] for package in extras[name]) == sorted(packages)
    assert set(extras) - set(doctor.EXTRAS) <= {"test", "dev"}


def test_doctor_reports(capsys):
    lines, _ = doctor.examine()
    text = "\n".join(lines)
    for word in ("torch", "FFmpeg", "memory", "extra", "model"):
        assert word in text


def test_doctor_names_a_library_outside_its_range(monkeypatch):
    import importlib.metadata as metadata

    assert doctor._satisfies("19.0.2", "<20")
    assert not doctor._satisfies("20.0", "<20")
    assert doctor._satisfies("2.13.0+cpu", ">=2.10")
    assert not doctor._satisfies("2.9.1", ">=2.10")
    assert doctor._satisfies("17.1", ">=17.1.0")
    monkeypatch.setattr(
        metadata, "requires", lambda name: ["av<20,>=17.1", "zarr>=3.1", "h5py>=99; extra == 'eval'"]
    )
    assert doctor._incompatible() == []
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "20.0.1" if name == "av" else real(name))
    assert doctor._incompatible() == ["av 20.0.1 is outside <20,>=17.1: pip install 'av<20,>=17.1'"]


def test_doctor_is_not_healthy_with_a_decoder_that_does_not_work(monkeypatch):
    monkeypatch.setattr("geo4d.video.decoder.decoder_problem", lambda: "PyAV 99 does not work")
    lines, healthy = doctor.examine()
    assert not healthy
    assert "decoder   PyAV 99 does not work" in lines


def test_doctor_says_that_torch_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it now fails as if it were not there
    monkeypatch.setattr(doctor, "_incompatible", lambda: ["torch is missing: pip install 'torch>=2.10'"])
    assert doctor.run(doctor.DoctorOptions()) == 1
    assert capsys.readouterr().out == "package   torch is missing: pip install 'torch>=2.10'\n"


def test_doctor_says_why_a_torch_that_is_there_cannot_be_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(doctor, "_incompatible", list)
    lines, healthy = doctor.examine()
    assert not healthy
    assert len(lines) == 1
    assert lines[0].startswith("package   torch: ")
