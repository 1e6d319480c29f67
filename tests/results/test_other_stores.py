"""Results in Azure's and Google's stores, as far as their emulators go; ``.ci/stores`` installs and runs it.

The emulator of Google's store ignores conditions on writes, so who may write is tried with Azure's and S3 alone.
"""

import numpy as np
import pytest

import geo4d
from geo4d.apps.cli import main
from geo4d.errors import OutputError
from geo4d.formats.objects import Objects
from geo4d.results.manifest import MANIFEST
from geo4d.results.remote import load_remote, upload_result
from tests.support.emulators import emulated, missing
from tests.support.remote import end_at, same, take_at_once
from tests.support.truth import BoxWorld, TruthPredictor

pytestmark = pytest.mark.stores
ON_CONDITION = pytest.mark.parametrize("bucket", ["az"], indirect=True)


@pytest.fixture(scope="module", params=["az", "gs"])
def bucket(request, tmp_path_factory):
    if why := missing(request.param):
        if request.config.getoption("--stores-required"):
            pytest.fail(why)
        pytest.skip(why)
    with emulated(request.param, tmp_path_factory.mktemp("store")) as url:
        yield url


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder, world = tmp_path_factory.mktemp("results") / "a", BoxWorld((24, 40))
    video = np.stack([world.rgb(t).numpy() for t in range(6)])
    geo4d.reconstruct(video, folder, model=TruthPredictor(world, length=4, stride=2), motion=False, tries=0)
    return folder


def test_a_result_is_whole_or_not_there(bucket, result, monkeypatch):
    url = f"{bucket}/results/a"
    upload_result(result, url)
    assert same(load_remote(url), result)
    with monkeypatch.context() as patch:
        end_at(patch, MANIFEST)
        with pytest.raises(KeyboardInterrupt):
            upload_result(result, url)
    with pytest.raises(OutputError, match="was ended at it"):
        load_remote(url)
    upload_result(result, url)
    assert same(geo4d.load(url), result)
    objects = Objects(url)
    chunk = objects.read("arrays.zarr/depth/c.2.0.0")
    objects.write("arrays.zarr/depth/c.2.0.0", chunk[:-1])
    with pytest.raises(OutputError, match="is damaged"):
        _ = geo4d.load(url).depth[2]
    objects.remove(["arrays.zarr/depth/c.2.0.0"])
    with pytest.raises(OutputError, match="is incomplete"):
        geo4d.load(url)


@ON_CONDITION
def test_of_many_at_a_time_one_may_write(bucket):
    got, refused = take_at_once(f"{bucket}/locked")
    assert (len(got), len(refused)) == (1, 5)
    got[0].beat()
    got[0].require()


@ON_CONDITION
def test_the_command_writes_reads_and_publishes_there(bucket, repository, tmp_path, capsys):
    clip, url = str(repository / "examples/clip.mp4"), f"{bucket}/command"
    assert main(["reconstruct", clip, "-o", f"{url}/a", "--stop", "8"]) == 0
    assert main(["reconstruct", clip, "-o", f"{url}/a", "--stop", "8"]) == 4
    assert "--overwrite" in capsys.readouterr().err
    assert main(["export", f"{url}/a", "--format", "ply", "-o", str(tmp_path / "a.ply")]) == 0
    assert (tmp_path / "a.ply").read_bytes().startswith(b"ply")
    assert main(["report", f"{url}/a", "-o", str(tmp_path / "a.html")]) == 0
    words = ["batch", clip, "-o", str(tmp_path / "batch"), "--publish", f"{url}/many", "--stop", "8"]
    assert main(words) == 0
    assert main(words) == 0
    assert any(name.endswith(MANIFEST) for name in Objects(f"{url}/many").list())
