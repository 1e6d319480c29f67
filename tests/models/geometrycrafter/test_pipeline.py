import dataclasses

import pytest
import torch

from geo4d.errors import CheckpointError
from geo4d.models.base import Predictor, load_predictor
from geo4d.models.geometrycrafter.pipeline import GeometryCrafterPredictor, load, network_size
from geo4d.models.geometrycrafter.prior_maps import frame_records, merge_statistics
from geo4d.models.geometrycrafter.windows import draw_noise
from geo4d.types import EvidenceMaps

SIZE = (64, 64)


@pytest.fixture
def make_predictor(golden_folder, small, room_prior):
    def make(variant="determ", **settings):
        defaults = {"window_length": 3, "overlap": 1, "num_steps": 1, "decode_chunk": 3}
        system = small.make_system(golden_folder, variant, **{**defaults, **settings})
        name = "geometrycrafter" if variant == "diff" else "geometrycrafter-determ"
        return GeometryCrafterPredictor(name, system, room_prior, "0" * 64)

    return make


def run_windows(predictor, windows, context, seed=5):
    predictions, previous = [], None
    for window in windows:
        previous = predictor.predict(window, seed=seed, context=context, previous=previous)
        predictions.append(previous)
    return predictions


@pytest.mark.parametrize("variant", ["diff", "determ"])
def test_windows_one_by_one_equal_the_whole_video(variant, make_predictor, make_window, room_prior):
    predictor = make_predictor(variant)
    # The last window lies flush with the end: it shares two frames, the published one only one.
    windows = [make_window(range(a, b), SIZE, i) for i, (a, b) in enumerate([(0, 3), (2, 5), (3, 6)])]
    context = predictor.prepare([make_window(range(0, 4), SIZE), make_window(range(4, 6), SIZE)])
    predictions = run_windows(predictor, windows, context)

    video = make_window(range(6), SIZE)
    prior = room_prior(video)
    statistics = merge_statistics(frame_records(prior.points, prior.mask))
    conditioning = predictor.system.encode(video.rgb, prior.points, prior.mask, statistics, SIZE)
    noise = draw_noise(3, (4, 8, 8), 5) if variant == "diff" else None
    whole = predictor.system.sample_video(conditioning, noise)
    for prediction, final in zip(predictions, (slice(0, 2), slice(2, 4), slice(3, 6)), strict=True):
        frames = prediction.frame_indices.tolist()
        inside = slice(frames.index(final.start), frames.index(final.stop - 1) + 1)
        torch.testing.assert_close(prediction.carry["latents"][inside], whole[final], atol=2e-4, rtol=2e-5)


def test_a_prediction_is_complete_and_repeatable(make_predictor, make_window):
    predictor = make_predictor("diff")
    window = make_window(range(2), (71, 133))
    context = predictor.prepare([window])
    first = predictor.predict(window, seed=1, context=context)
    again = make_predictor("diff").predict(window, seed=1, context=context)
    assert torch.equal(first.point_map, again.point_map)
    assert not torch.equal(first.point_map, predictor.predict(window, seed=2, context=context).point_map)
    assert first.point_map.shape == (2, 71, 133, 3)
    assert first.size == predictor.size_for((71, 133))
    assert first.point_frame == "camera"
    assert first.point_z_offset == 0.0
    assert torch.isfinite(first.intrinsics).all()
    assert first.intrinsics[0].equal(first.intrinsics[1])  # one focal length for the window
    assert predictor.size_for((1080, 1920)) == (576, 1024)
    assert 0 < predictor.memory_bytes((71, 133)) < predictor.memory_bytes((1080, 1920))
    assert predictor.info.window_stride == 2
    assert predictor.info.remark.startswith("the network has 64 of the 320 channels")


def test_prior_maps_are_kept_between_the_passes(make_predictor, make_window, room_prior):
    window = make_window(range(3), SIZE)
    predictor = make_predictor()
    context = predictor.prepare([window])
    kept = predictor.predict(window, seed=0, context=context)
    assert room_prior.calls == 3
    forgetful = make_predictor(prior_cache_bytes=0)
    context = forgetful.prepare([window])
    again = forgetful.predict(window, seed=0, context=context)
    assert room_prior.calls == 3 + 6
    assert torch.equal(kept.point_map, again.point_map)


def test_a_prior_of_single_frames_is_asked_for_several_at_once(make_predictor, make_window, room_prior):
    window = make_window(range(11), SIZE)
    alone = make_predictor().prior(window)
    assert room_prior.calls == 11
    room_prior.frames_alone, room_prior.calls = True, 0
    predictor = make_predictor()
    together = predictor.prior(window)
    assert room_prior.calls == 2
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)
    later = predictor.prior(make_window(range(9, 12), SIZE))  # two frames are known by now
    assert room_prior.calls == 3
    assert torch.equal(later[0][:2], alone[0][9:])
    assert predictor.prior.used_bytes == sum(x.numel() * x.element_size() for x in alone) // 11 * 12


def test_evidence_takes_the_place_of_the_prior(make_predictor, make_window, room_prior):
    window = make_window(range(2), SIZE)
    predictor = make_predictor(force_fixed_focal=False)
    own = predictor.predict(window, seed=0)
    same = predictor.predict(window, seed=0, evidence=room_prior(window))
    assert torch.equal(own.point_map, same.point_map)
    maps = room_prior(window)
    other = EvidenceMaps(points=maps.points * torch.tensor([1.0, 1.0, 0.5]), mask=maps.mask)
    assert not torch.equal(own.point_map, predictor.predict(window, seed=0, evidence=other).point_map)


@pytest.mark.parametrize("hazard", ["empty mask", "negative depth", "one empty frame"])
def test_hazards_of_the_prior_give_finite_results(hazard, make_predictor, make_window, room_prior):
    window = make_window(range(2), SIZE)
    maps = room_prior(window)
    if hazard == "empty mask":
        maps.mask[:] = False
    elif hazard == "one empty frame":
        maps.mask[1] = False
    else:
        maps.points[:, 10:20, 10:20, 2] = -1.0
    found = make_predictor("diff").predict(window, seed=0, evidence=maps)
    assert torch.isfinite(found.point_map).all()
    assert torch.isfinite(found.intrinsics).all()
    assert torch.isfinite(found.carry["latents"]).all()


def test_network_without_valid_pixels_still_has_a_camera(make_predictor, make_window):
    predictor = make_predictor(force_fixed_focal=False)
    last = predictor.system.point_map_vae.decoder.time_conv_outs[2]
    bias = last.bias.clone()
    last.bias.data.fill_(-1e4)
    try:
        found = predictor.predict(make_window(range(2), SIZE), seed=0)
    finally:
        last.bias.data.copy_(bias)
    assert not found.valid.any()
    assert torch.isfinite(found.intrinsics).all()
    assert (found.intrinsics[:, 0, 0] != 0).all()


def test_wrong_neighbours_are_refused(make_predictor, make_window):
    predictor = make_predictor()
    first = predictor.predict(make_window(range(3), SIZE), seed=0)
    with pytest.raises(ValueError, match="first"):
        predictor.predict(make_window(range(1, 2), SIZE, 1), seed=0, previous=first)
    bare = dataclasses.replace(first, carry=None)
    with pytest.raises(ValueError, match="carry"):
        predictor.predict(make_window(range(2, 5), SIZE, 1), seed=0, previous=bare)
    with pytest.raises(ValueError, match="latents"):
        predictor.predict(make_window(range(2, 5), (64, 128), 1), seed=0, previous=first)
    with pytest.raises(ValueError, match="window"):
        predictor.prepare([])


@pytest.mark.parametrize(
    ("source", "settings", "expected"),
    [
        ((448, 768), {}, (448, 768)),
        ((71, 133), {}, (64, 128)),
        ((1080, 1920), {}, (576, 1024)),
        ((20, 30), {}, (64, 64)),
        ((1920, 1080), {"max_side": 768}, (768, 448)),
        ((10, 10), {"height": 128, "width": 192}, (128, 192)),
    ],
)
def test_planned_sizes(source, settings, expected, make_predictor):
    assert network_size(source, make_predictor(**settings).config) == expected


def test_unknown_names_and_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match="geometrycrafter-determ"):
        load("nothing")
    with pytest.raises(ValueError, match="steps_number"):
        load("geometrycrafter", weights=tmp_path, steps_number=3)


def test_the_window_before_is_needed_for_its_latents_only(make_predictor, make_window):
    predictor = make_predictor("diff")
    windows = [make_window(range(3), SIZE), make_window(range(2, 5), SIZE, 1)]
    context = predictor.prepare(windows)
    first = predictor.predict(windows[0], seed=0, context=context)
    bare = dataclasses.replace(first, point_map=None, valid=None, intrinsics=None)
    found, expected = (
        predictor.predict(windows[1], seed=0, context=context, previous=p) for p in (bare, first)
    )
    assert torch.equal(found.point_map, expected.point_map)


def test_load_from_a_checkpoint_folder(checkpoint, room_prior, make_window, monkeypatch, tmp_path):
    predictor = load_predictor(
        "geometrycrafter-determ",
        weights=checkpoint,
        device="cpu",
        prior_model=room_prior,
        window_length=4,
        overlap=1,
    )
    assert isinstance(predictor, Predictor)
    assert predictor.info.name == "geometrycrafter-determ"
    assert predictor.info.config["unet_dtype"] == "float32"  # the default of a CPU
    assert predictor.info.config["prior"] == "room"
    found = predictor.predict(make_window(range(1), SIZE), seed=0)
    assert found.provenance["weights_sha256"] == predictor.info.weights_sha256
    monkeypatch.setenv("GEO4D_MODELS", str(tmp_path / "empty"))
    with pytest.raises(CheckpointError, match="MoGe"):
        load("geometrycrafter-determ", weights=checkpoint, device="cpu", dtype="bfloat16")
