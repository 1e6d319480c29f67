"""Memory that runs out at any stage: smaller pieces and the same result, else one error that names what needs less."""

from importlib import import_module

import numpy as np
import pytest
import torch

import geo4d
from geo4d.errors import MissingExtraError, ResourceError, is_out_of_memory, memory_errors
from geo4d.run import write
from geo4d.run.predict import mask_nonfinite
from tests.support.truth import BoxWorld, TruthPredictor

WORLD = BoxWorld((24, 40))


pytestmark = pytest.mark.usefixtures("one_thread")


class Short:
    """Calls a function, after having failed some times for want of memory."""

    def __init__(self, function, times):
        self.function, self.left, self.calls = function, times, 0

    def __call__(self, *words, **rest):
        self.calls += 1
        if self.left > 0:
            self.left -= 1
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"
            )
        return self.function(*words, **rest)


def run(**settings):
    video = torch.stack([WORLD.rgb(t) for t in range(12)])
    model = settings.pop("model", None) or TruthPredictor(WORLD, length=8, stride=4)
    return geo4d.reconstruct(video, model=model, output_size="48x80", **settings)


def same(a, b):
    return np.array_equal(a.depth[:], b.depth[:], equal_nan=True) and np.array_equal(a.c2w, b.c2w)


def test_a_window_is_tried_again_with_less(caplog):
    whole = run()
    model = TruthPredictor(WORLD, length=8, stride=4)
    model.predict = Short(model.predict, 1)
    assert same(run(model=model), whole)
    assert "once more with one thread" in caplog.text
    model.predict = Short(TruthPredictor(WORLD).predict, 2)
    with pytest.raises(
        ResourceError, match="out of memory in window 0 of the model truth; use a smaller model"
    ):
        run(model=model)
    assert model.predict.calls == 2


def test_maps_are_stored_one_after_another(monkeypatch, caplog):
    whole = run()
    monkeypatch.setattr(write, "resize_maps", Short(write.resize_maps, 1))
    assert same(run(), whole)
    assert "one after another" in caplog.text
    monkeypatch.setattr(write, "resize_maps", Short(write.resize_maps, 10**9))
    with pytest.raises(ResourceError, match="while storing maps; use --output-size model"):
        run()


@pytest.mark.parametrize(
    ("step", "place", "says"),
    [
        ("reconstruct", "open_clip", "while reading the video"),
        ("reconstruct", "list_shots", "looking for shots"),
        ("align", "align", "--start, --stop, --stride"),
    ],
)
def test_other_stages_name_what_needs_less(monkeypatch, step, place, says):
    module = import_module(f"geo4d.run.{step}")
    monkeypatch.setattr(module, place, Short(getattr(module, place), 10**9))
    with pytest.raises(ResourceError, match=says):
        run()


def test_a_decoder_without_memory_does_not_blame_the_video(tmp_path, monkeypatch):
    import av

    from geo4d.video.io import Video

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        container.mux(
            stream.encode(av.VideoFrame.from_ndarray(np.zeros((24, 32, 3), np.uint8), format="rgb24"))
        )
        container.mux(stream.encode())

    def fail(*words, **rest):
        raise av.error.MemoryError(12, "Cannot allocate memory")

    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(MemoryError):
        Video(tmp_path / "a.mp4")


def test_what_says_that_memory_ran_out():
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("x"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libx.so: failed to map segment from shared object: Cannot allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
    ):
        assert is_out_of_memory(error), error
        with (
            pytest.raises(ResourceError, match="while testing; do less"),
            memory_errors("testing", "do less"),
        ):
            raise error
    wrapped = ValueError("a library's own words")
    wrapped.__cause__ = MemoryError()
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    with pytest.raises(MissingExtraError), memory_errors("testing", "do less"):
        raise MissingExtraError("a", "b", "c")


def test_a_state_that_is_not_finite_does_not_reach_the_next_window():
    video = torch.stack([WORLD.rgb(t) for t in range(4)])
    from geo4d.types import Window

    window = Window(
        rgb=video, frame_indices=torch.arange(4), times_s=torch.arange(4).double() / 25, index=3, fps=25.0
    )
    good = TruthPredictor(WORLD, carries=True).predict(window, seed=0)
    assert good.carry
    assert mask_nonfinite(good).carry is good.carry
    bad = mask_nonfinite(
        type(good)(**{**vars(good), "carry": {name: value * torch.nan for name, value in good.carry.items()}})
    )
    assert bad.carry is None
    assert "not_finite" in bad.provenance
