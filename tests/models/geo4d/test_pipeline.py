"""The predictor: determinism, batches, chunks, faults, sizes, loading."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geo4d.errors import CheckpointError, ResourceError, is_out_of_memory
from geo4d.models.base import Predictor
from geo4d.models.geo4d import pipeline
from geo4d.models.geo4d.config import Geo4DConfig
from geo4d.models.geo4d.options import Geo4DOptions
from geo4d.models.geo4d.pipeline import Geo4DPredictor
from geo4d.models.geo4d.reading import coarse_rays
from geo4d.models.store.folder import write_model_folder
from geo4d.run.predict import mask_nonfinite, nonfinite_windows
from geo4d.types import Prediction, Window

MakePredictor = Callable[..., Geo4DPredictor]
MakeWindow = Callable[..., Window]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def same(a: Prediction, b: Prediction) -> bool:
    return all(torch.equal(value, b.tensors()[name]) for name, value in a.tensors().items())


def close(a: Prediction, b: Prediction) -> bool:
    names = ("point_map", "disparity", "ray_map", "point_uncertainty")
    return all(relative(a.tensors()[n], b.tensors()[n]) < 1e-5 for n in names)


def test_a_size_can_be_given(make_predictor: MakePredictor) -> None:
    assert make_predictor(num_steps=1, height=320, width=512).size_for((720, 1280)) == (320, 512)
    for wrong in ({"height": 320}, {"height": 320, "width": 500}):
        with pytest.raises(ValueError, match=r"height|width"):
            make_predictor(num_steps=1, **wrong)


def test_prediction_is_complete_and_repeatable(
    make_predictor: MakePredictor, make_window: MakeWindow
) -> None:
    predictor = make_predictor()
    assert isinstance(predictor, Predictor)
    window = make_window()
    first = predictor.predict(window, seed=3)
    assert first.size == window.size == (64, 64)
    assert first.num_frames == 16
    assert first.point_frame == "window"
    assert first.point_z_offset is None
    assert first.disparity_scale_kind == "affine"
    assert first.ray_map is not None
    assert first.ray_map.shape == (16, 8, 8, 6)
    assert first.ray_c2w is not None
    torch.testing.assert_close(first.ray_c2w[0, :3, :3], torch.eye(3), atol=1e-5, rtol=0)
    assert all(torch.isfinite(v).all() for n, v in first.tensors().items())
    json.dumps(dict(first.provenance))
    json.dumps(predictor.info.config)
    assert predictor.info.remark.startswith("the network has 32 of the 320 channels")
    assert same(first, make_predictor().predict(window, seed=3))
    assert not same(first, predictor.predict(window, seed=4))
    assert not same(first, predictor.predict(replace(window, index=1), seed=3))


def test_batches_and_chunks_do_not_change_results(
    make_predictor: MakePredictor, make_window: MakeWindow
) -> None:
    predictor = make_predictor()
    windows = [make_window(0), make_window(1, num_frames=5)]
    apart = [predictor.predict(window, seed=1) for window in windows]
    together = make_predictor(encode_chunk=7, decode_chunk=5).predict_batch(windows, seed=1)
    assert all(close(a, b) for a, b in zip(together, apart, strict=True))
    assert [p.num_frames for p in together] == [16, 5]


@pytest.mark.parametrize("num_frames", [1, 2, 15])
def test_short_windows_are_padded_and_trimmed(
    make_predictor: MakePredictor, make_window: MakeWindow, num_frames: int
) -> None:
    prediction = make_predictor(num_steps=1).predict(make_window(num_frames=num_frames), seed=0)
    assert all(len(v) == num_frames for v in prediction.tensors().values())


def test_portrait_and_odd_sizes(make_predictor: MakePredictor, make_window: MakeWindow) -> None:
    predictor = make_predictor(num_steps=1, max_area=64 * 128)
    for size, expected in (((97, 49), (128, 64)), ((33, 65), (64, 128))):
        assert predictor.size_for(size) == expected
        assert predictor.predict(make_window(num_frames=2, size=expected), seed=0).size == expected
    with pytest.raises(ValueError, match="multiples of"):
        predictor.predict(make_window(num_frames=2, size=(64, 40)), seed=0)


@pytest.fixture(scope="module")
def remembered() -> dict[str, Prediction]:
    """The prediction with default options, made once for all tests that compare with it."""
    return {}


@pytest.mark.parametrize(
    "options",
    [
        {"eta": 1.0},
        {"guidance": 3.0},
        {"guidance": 3.0, "image_guidance": 2.0},
        {"posterior": "mean"},
        {"clean_end": True},
        {"fps": 5.0},
        {"spacing": "uniform"},
    ],
)
def test_options_act(make_predictor: MakePredictor, make_window: MakeWindow, options: dict[str, Any]) -> None:
    window = make_window(num_frames=2)
    changed, usual = (
        make_predictor(**options).predict(window, seed=0),
        make_predictor().predict(window, seed=0),
    )
    assert changed.point_map is not None
    assert usual.point_map is not None
    assert torch.isfinite(changed.point_map).all()
    assert relative(changed.point_map, usual.point_map) > 1e-3


def test_fps_comes_from_the_window(make_predictor: MakePredictor, make_window: MakeWindow) -> None:
    predictor = make_predictor(num_steps=1)
    window = replace(make_window(num_frames=1), fps=11.9)
    forced = make_predictor(num_steps=1, fps=11.0).predict(replace(window, fps=60.0), seed=0)
    assert same(predictor.predict(window, seed=0), forced)


def test_per_frame_image_tokens(
    make_predictor: MakePredictor, make_window: MakeWindow, tiny_config: Geo4DConfig
) -> None:
    config = replace(tiny_config, per_frame_image_tokens=True)
    looking = make_predictor(config, num_steps=1).predict(make_window(), seed=0)
    plain = make_predictor(num_steps=1)
    blind = plain.predict(make_window(), seed=0)
    assert looking.disparity is not None
    assert blind.disparity is not None
    assert relative(looking.disparity, blind.disparity) > 1e-4
    with pytest.raises(ValueError, match="image tower"):
        Geo4DPredictor(config, plain.unet, plain.vae, plain.point_vae, plain.constants)


def test_nan_is_flagged_and_stays_in_its_window(
    make_predictor: MakePredictor, make_window: MakeWindow, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = make_predictor(num_steps=1)
    good, bad = make_window(0), make_window(1)
    bad.rgb[3, 0, 0, 0] = torch.nan
    both = predictor.predict_batch([good, bad], seed=0)
    assert close(both[0], predictor.predict(good, seed=0))
    assert both[1].provenance["not_finite"]["share_of_pixels"] == 1.0
    assert both[1].provenance["not_finite"]["frames"]["point_map"]
    assert both[1].point_map is not None
    assert torch.isfinite(both[1].point_map).all()
    assert both[1].valid is not None
    assert not both[1].valid.any()
    assert both[1].ray_c2w is None
    assert both[1].disparity is None
    assert "NaN or infinity" in caplog.text
    assert "not_finite" not in both[0].provenance
    # What the pipeline masked itself reaches the diagnostics of a run like what the run masks.
    provenance = {found.window_index: found.provenance for found in map(mask_nonfinite, both)}
    assert set(nonfinite_windows(provenance)) == {1}


def test_out_of_memory_is_met_with_smaller_chunks(
    make_predictor: MakePredictor, make_window: MakeWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = [make_window(0), make_window(1)]
    usual = make_predictor(num_steps=1).predict_batch(windows, seed=0)
    predictor = make_predictor(num_steps=1, encode_chunk=8, decode_chunk=8)

    def limited(function: Callable[..., Tensor], limit: int) -> Callable[..., Tensor]:
        def call(x: Tensor, *rest: Any) -> Tensor:
            if len(x) > limit:
                raise torch.OutOfMemoryError("out of memory")
            return function(x, *rest)

        return call

    monkeypatch.setattr(predictor.vae, "moments", limited(predictor.vae.moments, 3))
    monkeypatch.setattr(predictor.vae, "decode", limited(predictor.vae.decode, 1))
    forward = predictor.unet.forward
    monkeypatch.setattr(predictor.unet, "forward", limited(forward, 1))
    assert all(close(a, b) for a, b in zip(predictor.predict_batch(windows, seed=0), usual, strict=True))
    monkeypatch.setattr(predictor.unet, "forward", limited(forward, 0))
    with pytest.raises(ResourceError, match="low-memory"):
        predictor.predict(windows[0], seed=0)
    monkeypatch.setattr(
        predictor.unet, "forward", lambda *a: (_ for _ in ()).throw(RuntimeError("shape mismatch"))
    )
    with pytest.raises(RuntimeError, match="shape mismatch"):
        predictor.predict(windows[0], seed=0)


def test_out_of_memory_is_recognised() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
    )
    assert not is_out_of_memory(RuntimeError("size mismatch"))


def test_half_precision_and_offload(make_predictor: MakePredictor, make_window: MakeWindow) -> None:
    window = make_window(num_frames=3)
    usual = make_predictor(num_steps=1).predict(window, seed=0)
    offloaded = make_predictor(num_steps=1, offload=True).predict(window, seed=0)
    assert same(usual, offloaded)
    half = make_predictor(num_steps=1, dtype=torch.bfloat16).predict(window, seed=0)
    assert half.disparity is not None
    assert usual.disparity is not None
    assert half.disparity.dtype == torch.float32
    assert relative(half.disparity, usual.disparity) < 5e-2


def test_wrong_windows(make_predictor: MakePredictor, make_window: MakeWindow) -> None:
    predictor = make_predictor()
    with pytest.raises(ValueError, match="one size"):
        predictor.predict_batch([make_window(), make_window(size=(64, 128))], seed=0)
    with pytest.raises(ValueError, match="at most 16 frames, got 17"):
        predictor.predict(make_window(num_frames=17), seed=0)


def test_load_from_a_folder(
    make_predictor: MakePredictor, make_window: MakeWindow, tiny_config: Geo4DConfig, tmp_path: Path
) -> None:
    original = make_predictor(num_steps=1)
    tensors = {
        f"{part}.{name}": tensor
        for part in ("unet", "vae", "point_vae")
        for name, tensor in getattr(original, part).state_dict().items()
    } | {f"context.{name}": tensor for name, tensor in vars(original.constants).items()}
    folder = write_model_folder(
        tmp_path / "geo4d", tensors, {"family": "geo4d", "network": tiny_config.to_dict()}, ""
    )
    loaded = pipeline.load(
        weights=tmp_path / "geo4d", device="cpu", dtype="float32", num_steps=1, max_area=8192
    )
    assert loaded.info.weights_sha256 == folder.sha256
    for part in ("unet", "vae", "point_vae"):
        expected, found = getattr(original, part).state_dict(), getattr(loaded, part).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())
    for name, value in vars(original.constants).items():
        assert torch.equal(getattr(loaded.constants, name), value)
    # Where a weight lies in memory (here: in the file) decides on some processors which kernel multiplies it.
    for part in ("unet", "vae", "point_vae"):
        for weight in getattr(loaded, part).parameters():
            weight.data = weight.data.clone()
    window = make_window(num_frames=2)
    assert same(
        replace(loaded.predict(window, seed=0), provenance={}),
        replace(original.predict(window, seed=0), provenance={}),
    )
    with pytest.raises(ValueError, match="unknown options"):
        pipeline.load(weights=tmp_path / "geo4d", steps=3)
    with pytest.raises(ValueError, match="preset"):
        pipeline.load(weights=tmp_path / "geo4d", preset="huge")
    del tensors["unet.conv_in.bias"]
    write_model_folder(tmp_path / "part", tensors, {"family": "geo4d", "network": tiny_config.to_dict()}, "")
    with pytest.raises(CheckpointError, match=r"part unet.*conv_in\.bias"):
        pipeline.load(weights=tmp_path / "part")
    with pytest.raises(CheckpointError, match="config of a Geo4D network"):
        Geo4DConfig.from_dict(tiny_config.to_dict() | {"colour": 1})


def test_memory_estimate_grows_with_size(make_predictor: MakePredictor) -> None:
    small, large = make_predictor(max_area=8192), make_predictor(max_area=None)
    assert small.memory_bytes((480, 640)) < large.memory_bytes((480, 640))
    assert Geo4DOptions() == Geo4DOptions(**pipeline.PRESETS["default"])


def test_coarse_rays_keep_unit_directions() -> None:
    rays = torch.randn(2, 16, 24, 6)
    coarse = coarse_rays(rays)
    assert coarse.shape == (2, 2, 3, 6)
    torch.testing.assert_close(coarse[..., :3].norm(dim=-1), torch.ones(2, 2, 3))


@pytest.mark.parametrize(("guidance", "passes"), [(1.0, 2), (2.0, 4)])
def test_steps_between_reuse_the_deep_levels(
    make_predictor: MakePredictor, make_window: MakeWindow, guidance: float, passes: int
) -> None:
    window = make_window()
    plain = make_predictor(num_steps=4, guidance=guidance).predict(window, seed=3)
    cached = make_predictor(num_steps=4, guidance=guidance, cache_interval=2)
    ran: list[int] = []
    cached.unet.middle.register_forward_hook(lambda *unused: ran.append(1))
    first = cached.predict(window, seed=3)
    assert len(ran) == passes  # steps 0 and 2 of every branch
    assert same(first, cached.predict(window, seed=3))
    assert not same(first, plain)
    assert relative(first.tensors()["point_map"], plain.tensors()["point_map"]) < 0.5
