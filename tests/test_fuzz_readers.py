"""Damaged files of every kind that is read: the documented error or a value, no crash, no hang, no memory without bound.

Each test takes a valid small file, lets hypothesis damage it, and reads it. ``benchmarks/reliability.py`` does the same
with more seeds, each in a process of its own.
"""

import contextlib
import json
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import geo4d
from geo4d.errors import InputError, OutputError
from geo4d.formats.arrays import load_npz, save_npz
from geo4d.formats.colmap import ColmapModel, load_colmap, save_colmap
from geo4d.formats.images import load_exr, save_exr
from geo4d.formats.nerfstudio import NerfstudioModel, load_nerfstudio, save_nerfstudio
from geo4d.formats.points import PointCloud, load_ply, save_ply
from geo4d.video.io import Video
from tests.support.truth import BoxWorld, TruthPredictor

MORE_MEMORY = 2 * 2**30
"""Address space that a test may take above what the process has; bombs want far more."""

MOST_SECONDS = 300
"""For a whole test, on however slow a machine: beyond this a reader hangs."""

fuzzing = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    """A limit of memory, which turns a bomb into a MemoryError, and one of time."""

    def hang(number, frame):
        raise AssertionError(f"a reader did not come back within {MOST_SECONDS} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, hang)
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, hard))
    signal.alarm(MOST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


INTERESTING = [
    b"\0" * 4,
    b"\xff" * 4,
    b"\xff\xff\xff\x7f",
    b"\xff" * 8,
    b"nan",
    b"-1",
    b"9" * 18,
    b"\n",
    b" ",
    b"e9",
]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes flipped, overwritten, put in, taken out or cut off, most of them near the beginning, where headers are."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        if not changed:
            break
        reach = len(changed) if draw(st.booleans()) else min(len(changed), 200)
        at = draw(st.integers(0, reach - 1))
        kind = draw(st.sampled_from(["flip", "byte", "write", "insert", "remove", "cut"]))
        if kind == "flip":
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte":
            changed[at] = draw(st.integers(0, 255))
        elif kind == "write":
            piece = draw(st.sampled_from(INTERESTING))
            changed[at : at + len(piece)] = piece
        elif kind == "insert":
            changed[at:at] = draw(st.sampled_from(INTERESTING))
        elif kind == "remove":
            del changed[at : at + draw(st.integers(1, 40))]
        else:
            del changed[at:]
    return bytes(changed)


def check(read: Callable[[], object], *expected: type[Exception]) -> None:
    """The reader returns, or raises what it documents."""
    with contextlib.suppress(*expected):
        read()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def valid(place) -> dict[str, bytes]:
    """Small valid files by their names."""
    rng = np.random.default_rng(0)
    cloud = PointCloud(
        rng.normal(size=(5, 3)).astype(np.float32), rng.integers(0, 255, (5, 3)).astype(np.uint8)
    )
    save_ply(place / "binary.ply", [cloud], ["a comment"])
    rows = "\n".join(" ".join(f"{v:.3f}" for v in row) for row in cloud.positions)
    header = "ply\nformat ascii 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
    (place / "ascii.ply").write_text(f"{header}end_header\n{rows}\n")
    save_exr(
        place / "a.exr", {"Z": rng.random((6, 8)).astype(np.float32), "c.V": np.zeros((6, 8), np.float32)}
    )
    save_npz(place / "a.npz", {"depth": rng.random((3, 4, 5)), "times": np.arange(3)})
    c2w = np.tile(np.eye(4), (2, 1, 1))
    k = np.tile(np.array([[9.0, 0, 4], [0, 9, 3], [0, 0, 1]]), (2, 1, 1))
    tracks = {
        "track_points": np.array([0, 0, 1]),
        "track_images": np.array([0, 1, 1]),
        "track_pixels": np.ones((3, 2)),
    }
    points = {"points": np.ones((2, 3)), "colours": np.zeros((2, 3), np.uint8), "point_errors": np.zeros(2)}
    save_colmap(place / "colmap", ColmapModel(["a.png", "b.png"], k, [(6, 8)] * 2, c2w, **points, **tracks))
    save_nerfstudio(
        place / "transforms.json",
        NerfstudioModel(["a.png", "b.png"], k, [(6, 8)] * 2, c2w, times_s=np.arange(2.0)),
    )
    files = [path for path in place.rglob("*") if path.is_file()]
    return {str(path.relative_to(place)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("binary.ply", load_ply),
        ("ascii.ply", load_ply),
        ("a.exr", load_exr),
        ("a.npz", load_npz),
        ("transforms.json", load_nerfstudio),
    ],
)
def test_single_files(place, valid, name, read):
    path = place / f"damaged{Path(name).suffix}"

    @fuzzing
    @given(damaged(valid[name]))
    def attack(data):
        path.write_bytes(data)
        check(lambda: read(path), InputError)

    attack()


@pytest.mark.parametrize("kind", ["bin", "txt"])
def test_colmap(place, valid, kind):
    folder = place / f"damaged-{kind}"
    folder.mkdir(exist_ok=True)
    names = [f"{part}.{kind}" for part in ("cameras", "images", "points3D")]

    @fuzzing
    @given(st.data())
    def attack(data):
        broken = data.draw(st.sampled_from(names))
        for name in names:
            whole = valid[f"colmap/{name}"]
            (folder / name).write_bytes(data.draw(damaged(whole)) if name == broken else whole)
        check(lambda: load_colmap(folder), InputError)

    attack()


FORMATS = {"mp4": "mpeg4", "mkv": "mpeg4", "avi": "mpeg4", "gif": "gif"}


@pytest.mark.parametrize("kind", list(FORMATS))
def test_containers(place, kind):
    import av

    path = place / f"clip.{kind}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(FORMATS[kind], rate=25)
        stream.width, stream.height = 32, 24
        stream.pix_fmt = "rgb8" if kind == "gif" else "yuv420p"
        for t in range(6):
            picture = np.full((24, 32, 3), 20 * t, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    whole = path.read_bytes()
    broken = place / f"broken.{kind}"

    def read() -> None:
        with Video(broken, allow_partial=True) as video:
            video.read(range(video.num_frames))

    @settings(fuzzing, max_examples=25)
    @given(damaged(whole))
    def attack(data):
        broken.write_bytes(data)
        check(read, InputError)

    attack()


def test_manifest(place):
    """Values of the manifest are replaced by others of any kind; a result opens or is refused."""
    world = BoxWorld((8, 12))
    video = np.stack([(255 * world.rgb(t).numpy()).astype(np.uint8) for t in range(3)])
    geo4d.reconstruct(
        video, place / "out", model=TruthPredictor(world, length=3, stride=3), output_size="model"
    )
    manifest = place / "out" / "manifest.json"
    text = manifest.read_bytes()
    document = json.loads(text)
    values = st.sampled_from([None, [], {}, "", "x", -1, 0, 2**70, 1.5, True, [[]], "\0", "../..", 1e308])
    places = _places(document)

    @settings(fuzzing, max_examples=40)
    @given(st.data())
    def attack(data):
        changed = json.loads(text)
        if data.draw(st.booleans()):
            *above, last = data.draw(st.sampled_from(places))
            inner = changed
            for key in above:
                inner = inner[key]
            if data.draw(st.booleans()):
                inner[last] = data.draw(values)
            else:
                del inner[last]
            manifest.write_text(json.dumps(changed))
        else:
            manifest.write_bytes(data.draw(damaged(text)))
        check(lambda: geo4d.load(place / "out").depth[:], InputError, OutputError)

    attack()


def _places(value: object, above: tuple = ()) -> list[tuple]:
    """The way to every value of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [] if not above else [above]
    for key, item in items:
        found += _places(item, (*above, key))
    return found


def test_bombs_are_refused_before_memory_is_taken(tmp_path):
    """Counts that a header promises and the file does not hold."""
    header = "ply\nformat {} 1.0\nelement vertex 99999999999999\nproperty float x\nproperty float y\nproperty float z\n"
    for layout in ("ascii", "binary_little_endian"):
        (tmp_path / "a.ply").write_text(header.format(layout) + "end_header\n1 2 3\n")
        with pytest.raises(InputError, match="99999999999999 points"):
            load_ply(tmp_path / "a.ply")
    for name in ("cameras", "images", "points3D"):
        (tmp_path / f"{name}.bin").write_bytes(b"\1" + b"\0" * 7 + b"\xff" * 200)
    with pytest.raises(InputError, match="malformed"):
        load_colmap(tmp_path)
    save_exr(tmp_path / "a.exr", {"Z": np.zeros((4, 4), np.float32)})
    data = (tmp_path / "a.exr").read_bytes()
    at = data.index(b"displayWindow\0box2i\0") + len(b"displayWindow\0box2i\0") + 4
    huge = np.array([0, 0, 2**15, 2**15], "<i4").tobytes()
    (tmp_path / "b.exr").write_bytes(data[:at] + huge + data[at + 16 :])
    with pytest.raises(InputError, match="displayWindow"):
        load_exr(tmp_path / "b.exr")


def test_vertices_after_other_elements_are_not_taken_for_the_first(tmp_path):
    text = (
        "ply\nformat ascii 1.0\nelement camera 1\nproperty float f\nelement vertex 1\nproperty float x\n"
        "property float y\nproperty float z\nend_header\n7\n1 2 3\n"
    )
    (tmp_path / "a.ply").write_text(text)
    with pytest.raises(InputError, match="vertices first"):
        load_ply(tmp_path / "a.ply")


def test_poses_of_another_number_than_frames(tmp_path):
    frame = {"file_path": "a.png", "w": 4, "h": 4, "fl_x": 4, "transform_matrix": np.eye(4)[:3].tolist()}
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": [frame] * 4}))
    with pytest.raises(InputError, match=r"\[4, 4, 4\]"):
        load_nerfstudio(tmp_path)
