import pytest
import torch

from geo4d.geometry.cameras import project
from geo4d.models.geometrycrafter.decode import (
    DecodedMaps,
    TangentSums,
    frame_tangents,
    iter_decode,
    maps_to_points,
    resize_maps,
    theta_to_intrinsics,
)


@pytest.mark.parametrize(
    ("run", "settings", "resized"),
    [
        ("proj1_fixed0_resize1_nearest0", {"force_fixed_focal": False}, True),
        ("proj1_fixed1_resize1_nearest1", {"nearest_resize": True}, True),
        ("proj0_fixed0_resize0_nearest0", {"force_projection": False}, False),
    ],
)
def test_recorded_points(run, settings, resized, golden, golden_folder, small):
    data = golden("decode")
    system = small.make_system(golden_folder, "determ", decode_chunk=2, **settings)
    latents = data["latents"]
    size = tuple(data["target_hw"].tolist()) if resized else (8 * latents.shape[2], 8 * latents.shape[3])
    found = system.points(system.iter_decode(latents * system.image_vae.config.scaling_factor, size))
    assert (found.point_map[:, ::4, ::4] - data[f"{run}_points_every_4th"]).abs().max() < 1e-4
    assert torch.equal(found.valid[:, ::4, ::4], data[f"{run}_mask_every_4th"])


def spread_in_time(latents):
    """A stand-in decoder whose temporal reach is two frames; ends repeat."""
    padded = torch.cat([latents[:1]] * 2 + [latents] + [latents[-1:]] * 2)
    return torch.stack([padded[t : t + 5].mean(0) for t in range(len(latents))])


@pytest.mark.parametrize("num_frames", [1, 2, 5, 8, 9, 17, 23])
@pytest.mark.parametrize(("chunk", "overlap"), [(8, 0), (8, 3), (8, 7), (3, 1), (1, 0)])
def test_every_frame_comes_out_once(num_frames, chunk, overlap):
    latents = torch.rand(num_frames, 3, 2, 2)
    calls = []

    def decode(part):
        calls.append(len(part))
        return part

    torch.testing.assert_close(torch.cat(list(iter_decode(decode, latents, chunk, overlap))), latents)
    assert max(calls) <= chunk
    if overlap and num_frames >= chunk:
        assert min(calls) == chunk


def test_overlap_removes_the_dependence_on_the_chunk():
    latents = torch.rand(40, 3, 1, 1)
    whole = spread_in_time(latents)

    def error(chunk, overlap):
        return (torch.cat(list(iter_decode(spread_in_time, latents, chunk, overlap))) - whole).abs().mean()

    assert error(10, 0) > 1e-2
    assert error(10, 3) < 0.5 * error(10, 0)
    for chunk in (8, 10, 16):
        assert error(chunk, 6) < 1e-6  # a third of the overlap is the reach of this decoder


def test_overlap_must_be_smaller_than_the_chunk():
    with pytest.raises(ValueError, match="overlap"):
        list(iter_decode(lambda x: x, torch.zeros(3, 3, 1, 1), 2, 2))


@pytest.mark.parametrize("size", [(6, 8), (5, 9)])
def test_intrinsics_project_points_onto_their_pixels(size):
    maps = DecodedMaps(torch.full((2, *size), 0.7), torch.randn(2, *size), torch.ones(2, *size))
    theta = torch.tensor([0.7, 0.4])
    points = maps_to_points(maps, theta)
    pixels, _ = project(points.flatten(1, 2), theta_to_intrinsics(theta, size))
    pixels = pixels.unflatten(1, size)
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    torch.testing.assert_close(pixels, torch.stack([x, y], -1).expand(2, *size, 2), atol=1e-4, rtol=1e-4)


def test_frames_without_valid_pixels():
    maps = DecodedMaps(torch.full((2, 4, 4), 0.7), torch.zeros(2, 4, 4), torch.full((2, 4, 4), -1.0))
    maps.mask[0] = 1.0
    published, ours = frame_tangents(maps, published=True), frame_tangents(maps)
    assert published[1] == 0  # a camera without field of view
    assert ours[1] == pytest.approx(0.7)
    assert ours[0] == published[0] == pytest.approx(0.7, rel=2e-4)
    assert torch.isfinite(theta_to_intrinsics(ours, (4, 4))).all()


def test_sums_of_parts_are_the_sums_of_the_whole():
    theta, mask = torch.rand(5, 4, 6), torch.randn(5, 4, 6)
    whole = TangentSums.of(DecodedMaps(theta, theta, mask))
    parts = TangentSums.of(DecodedMaps(theta[:2], theta[:2], mask[:2])) + TangentSums.of(
        DecodedMaps(theta[2:], theta[2:], mask[2:])
    )
    assert parts.mean(published=True) == pytest.approx(whole.mean(published=True))


def test_nearest_resize_invents_no_depth():
    maps = torch.randn(2, 3, 4, 4)
    found = resize_maps(maps, (7, 9), nearest=True)
    assert set(found.log_depth.flatten().tolist()) <= set(maps[:, 1].flatten().tolist())


def test_depth_is_capped():
    maps = resize_maps(torch.full((1, 3, 2, 2), 50.0), (4, 4))
    assert torch.isfinite(maps.depth).all()
