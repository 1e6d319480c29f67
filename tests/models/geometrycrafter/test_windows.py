import pytest
import torch

from geo4d.models.geometrycrafter.windows import (
    Conditioning,
    blend_overlap,
    draw_noise,
    frame_noise,
    sample_window,
    window_starts,
)


def settings_of(arguments):
    return {
        "num_steps": arguments["num_inference_steps"],
        "guidance_scale": arguments["guidance_scale"],
        "window_length": arguments["window_size"],
        "overlap": arguments["overlap"],
    }


@pytest.mark.parametrize("case", ["sampling_diff", "sampling_guided"])
def test_recorded_latents(case, golden, golden_folder, small):
    data = golden(case)
    system = small.make_system(golden_folder, "diff", **settings_of(data["args"]))
    conditioning = Conditioning(data["video_embeddings"], data["video_latents"], data["prior_latents"])
    latents = system.sample_video(conditioning, data["noise"][0])
    unscaled = latents / system.image_vae.config.scaling_factor
    assert (unscaled - data["latents_final_unscaled"]).abs().max() < 5e-4


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [(1, [0]), (110, [0]), (111, [0, 85]), (195, [0, 85]), (196, [0, 85, 170]), (300, [0, 85, 170, 255])],
)
def test_starts_of_the_published_windows(num_frames, expected):
    starts = window_starts(num_frames, 110, 25)
    assert starts == expected
    if len(starts) > 1:
        assert num_frames - starts[-1] > 25


def test_bad_windows_are_refused():
    for arguments in ((0, 4, 2), (5, 4, 4), (5, 4, -1)):
        with pytest.raises(ValueError, match="expected"):
            window_starts(*arguments)


@pytest.mark.parametrize(("length", "overlap"), [(4, 2), (5, 1), (6, 0), (7, 5)])
def test_noise_by_frame_number_equals_the_rotating_buffer(length, overlap):
    noise = draw_noise(length, (1, 1, 1), seed=3)
    buffer = noise
    for start in window_starts(31, length, overlap):
        count = min(length, 31 - start)
        assert torch.equal(frame_noise(noise, torch.arange(start, start + count)), buffer[:count])
        buffer = torch.cat([buffer[length - overlap :], buffer[: length - overlap]])


def conditioning_of(count):
    return Conditioning(torch.zeros(count, 48), torch.zeros(count, 4, 8, 8), torch.zeros(count, 4, 8, 8))


@pytest.mark.parametrize("variant", ["diff", "determ"])
@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_any_overlap_works_for_both_variants(variant, overlap, golden_folder, small):
    system = small.make_system(golden_folder, variant, num_steps=2, window_length=3, overlap=overlap)
    noise = draw_noise(3, (4, 8, 8), 0) if variant == "diff" else None
    latents = system.sample_video(conditioning_of(5), noise)
    assert latents.shape == (5, 4, 8, 8)
    assert torch.isfinite(latents).all()


def test_blend_ends_are_pure():
    old, new = torch.zeros(3, 1, 1, 1), torch.ones(5, 1, 1, 1)
    assert blend_overlap(new, old).flatten().tolist() == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert blend_overlap(new, None) is new
    assert blend_overlap(new, old[:0]) is new


def test_wrong_calls_are_refused(golden_folder, small):
    system = small.make_system(golden_folder, "diff", num_steps=1)
    rest = (system.config, system.scheduler)
    with pytest.raises(ValueError, match="noise"):
        sample_window("diff", lambda *a: a[0], conditioning_of(2), None, *rest)
    with pytest.raises(ValueError, match="shared"):
        sample_window("determ", lambda *a: a[0], conditioning_of(2), None, *rest, torch.zeros(3, 4, 8, 8))
