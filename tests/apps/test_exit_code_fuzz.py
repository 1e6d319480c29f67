"""Any value of any option of the commands that read a result, and anything in its files: a documented exit code, not 70.

``reconstruct`` is fuzzed in ``test_exit_codes.py``. Bounded: some tens of runs of a result with four tiny frames.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import geo4d
from geo4d.apps import cli
from geo4d.export import FORMATS
from geo4d.results.manifest import DIAGNOSTICS, MANIFEST, SUMS, manifest_sha256
from tests.support.commands import options_of
from tests.support.truth import BoxWorld, TruthPredictor

DOCUMENTED = set(range(11))

bounded = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    world = BoxWorld((24, 32))
    video = np.stack([(255 * world.rgb(t).numpy()).astype(np.uint8) for t in range(4)])
    model = TruthPredictor(world, length=4, stride=4)
    geo4d.reconstruct(video, folder / "result", model=model, output_size="model", split_shots=False)
    return folder / "result"


values = st.one_of(
    st.integers(-2, 9).map(str),
    st.sampled_from(
        [
            "nan",
            "inf",
            "-inf",
            "1e400",
            "-0.0",
            "1e-320",
            "",
            " ",
            "٣",
            "9" * 30,
            "::",
            "0:2",
            "3,1",
            "0,0",
            "::-1",
        ]
        + ["None", "true", "..", "/", "/dev/null", "\udcff", "half", "y", "a/b", "x" * 300]
    ),
    st.floats(allow_nan=True).map(repr),
    st.text(max_size=4).filter(lambda text: "\0" not in text),
)
COMMANDS = ("data", "evaluate", "export", "models", "pose", "report", "train")
"""``reconstruct`` has a test of its own; ``view`` would wait for visitors."""
OPTIONS = {command: options_of(command) for command in COMMANDS}


def test_options_are_those_of_the_help(capsys):
    """A new option is tried from its first day on, because nobody has to list it."""
    for command, options in OPTIONS.items():
        assert cli.main([command, "--help"]) == 0
        text = capsys.readouterr().out
        for name, count in options.items():
            assert re.search(rf"{name}[ ,\]|]", text), (command, name, count)
    assert OPTIONS["export"]["--reference"] == 1
    assert OPTIONS["pose"]["--intrinsics"] == 4
    assert OPTIONS["data"]["--size"] == 2
    assert OPTIONS["evaluate"]["--no-published"] == 0


@bounded
@given(st.data())
def test_any_value_of_any_option(result, tmp_path_factory, monkeypatch_module, data):
    place = tmp_path_factory.mktemp("fuzz")
    command = data.draw(st.sampled_from(sorted(OPTIONS)))
    fixed = {
        "export": [
            str(result),
            "-o",
            str(place / "out"),
            "--format",
            data.draw(st.sampled_from(sorted(FORMATS))),
        ],
        "report": [str(result), "-o", str(place / "out.html")],
        "pose": [str(result), "-o", str(place / "out")],
        "evaluate": ["folder", str(place), "--predictions", str(place)],
        "data": [
            *data.draw(
                st.sampled_from(
                    [["check", str(place)], ["pack", "--from", str(place), "-o", str(place / "p")]]
                )
            )
        ],
        "train": [
            data.draw(st.sampled_from(["decoder", "denoiser", "all", "nope"])),
            *("-o", str(place / "t"), "--shards", str(place / "none")),
        ],
        "models": [
            data.draw(st.sampled_from(["list", "verify", "convert", "nope"])),
            data.draw(values),
            "-o",
            str(place / "m"),
        ],
    }[command]
    words = [command, *fixed]
    names = sorted(OPTIONS[command])
    for name in data.draw(st.lists(st.sampled_from(names), min_size=0, max_size=2, unique=True)):
        words += [name, *(data.draw(values) for _ in range(OPTIONS[command][name]))]
    code = cli.main(words)
    assert code in DOCUMENTED, (code, words)


@pytest.fixture(scope="module")
def monkeypatch_module(tmp_path_factory):
    """Relative names that options are given lie in a folder of their own, and so does the model store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        patch.setenv("GEO4D_MODELS", str(tmp_path_factory.mktemp("store")))
        yield patch


ANYTHING = st.recursive(
    st.sampled_from([None, "", "x", -1, 0, 1, 2**70, 1.5, 1e308, True, "\0", "../..", "\udcff", "<b>"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "0", "text"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def places_of(value: object, above: tuple = ()) -> list[tuple]:
    """The way to every value of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [] if not above else [above]
    for key, item in items:
        found += places_of(item, (*above, key))
    return found


def change(document: dict, data: st.DataObject) -> dict:
    changed = json.loads(json.dumps(document))
    for _ in range(data.draw(st.integers(1, 2))):
        found = places_of(changed)
        if not found:
            break
        *above, last = data.draw(st.sampled_from(found))
        inner = changed
        for key in above:
            inner = inner[key]
        if data.draw(st.booleans()):
            inner[last] = data.draw(ANYTHING)
        else:
            del inner[last]
    return changed


@pytest.mark.parametrize("name", [MANIFEST, DIAGNOSTICS])
def test_anything_in_the_files_of_a_result(result, tmp_path, name):
    """The sums are made right again: another program may have written all of it."""
    copy = Path(shutil.copytree(result, tmp_path / "copy"))
    document = json.loads((copy / name).read_text())
    manifest = json.loads((copy / MANIFEST).read_text())
    sums = (copy / SUMS).read_text()

    @bounded
    @given(st.data())
    def attack(data):
        text = json.dumps(change(document, data))
        whole = dict(manifest)
        if name == MANIFEST:
            whole = json.loads(text)
        else:
            (copy / name).write_text(text)
            listed = [line for line in sums.splitlines() if not line.endswith(f"  {name}")]
            listed.append(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}")
            written = "\n".join(listed) + "\n"
            (copy / SUMS).write_text(written)
            whole["sums_sha256"] = hashlib.sha256(written.encode()).hexdigest()
        if isinstance(whole, dict):
            whole["sha256"] = manifest_sha256(whole)
        (copy / MANIFEST).write_text(json.dumps(whole))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        for words in (
            ["report", str(copy), "-o", str(tmp_path / "r.html")],
            ["export", str(copy), "--format", "tum", "-o", str(tmp_path / "out" / "t.txt")],
            ["export", str(copy), "--format", "npz", "-o", str(tmp_path / "out" / "a.npz")],
        ):
            code = cli.main(words)
            assert code in DOCUMENTED, (code, words)

    attack()
