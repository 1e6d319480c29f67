"""Maps of a known scene, normalised as the network's targets are, must be read back as that scene."""

from dataclasses import replace

import pytest
import torch

from geo4d.geometry.poses import so3_exp
from geo4d.models.geo4d.reading import DecodedMaps, coarse_rays, read_maps
from geo4d.types import Prediction, Window

T, H, W = 3, 16, 24


def window(num_frames: int = T) -> Window:
    frames = torch.arange(num_frames)
    return Window(torch.zeros(num_frames, H, W, 3), frames + 5, frames.double() / 10, 4, 10.0)


def rays(num_frames: int = T) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit directions, moments, rotations (camera to window) and centres of cameras that turn and walk."""
    y, x = torch.meshgrid(torch.linspace(-0.4, 0.4, H), torch.linspace(-0.6, 0.6, W), indexing="ij")
    camera = torch.nn.functional.normalize(torch.stack([x, y, torch.ones_like(x)], -1), dim=-1)
    steps = torch.arange(num_frames)[:, None].float()
    rotation = so3_exp(steps * torch.tensor([[0.02, 0.05, 0.01]]))
    centre = steps * torch.tensor([[0.1, -0.05, 0.2]])
    direction = torch.einsum("tij,hwj->thwi", rotation, camera)
    moment = torch.linalg.cross(centre[:, None, None].expand_as(direction), direction)
    return direction, moment, rotation, centre


def maps(num_frames: int = T) -> DecodedMaps:
    generator = torch.Generator().manual_seed(0)
    direction, moment, _, _ = rays(num_frames)
    points = 0.4 * torch.rand(num_frames, H, W, 4, generator=generator) - 0.2
    disparity = 0.6 * torch.rand(num_frames, H, W, generator=generator) - 0.3
    return DecodedMaps(points, direction, moment, disparity)


def read(decoded: DecodedMaps, of: Window | None = None) -> Prediction:
    return read_maps(decoded, of or window(), seed=9, sky_tolerance=0.05, provenance={"predictor": "geo4d"})


def test_what_belongs_to_the_window_is_taken_over() -> None:
    found = read(maps())
    assert found.frame_indices.tolist() == [5, 6, 7]
    assert found.window_index == 4
    assert found.seed == 9
    assert found.provenance == {"predictor": "geo4d"}
    assert (found.point_frame, found.point_scale_kind) == ("window", "scale")
    assert found.disparity_scale_kind == "affine"


def test_padding_is_removed() -> None:
    longer = maps(5)
    found, whole = read(longer, window(2)), read(longer, window(5))
    for name, tensor in found.tensors().items():
        if name in ("point_map", "disparity", "ray_map", "ray_c2w", "valid", "sky", "point_uncertainty"):
            assert len(tensor) == 2
            torch.testing.assert_close(tensor, whole.tensors()[name][:2], atol=1e-5, rtol=1e-5)


def test_cameras_are_those_of_the_rays() -> None:
    _, _, rotation, centre = rays()
    found = read(maps()).ray_c2w
    assert found is not None
    # Rotations are relative to the first frame, centres in the window's unit.
    torch.testing.assert_close(found[:, :3, :3], rotation[:1].mT @ rotation, atol=1e-4, rtol=0)
    step = found[1:, :3, 3] - found[:1, :3, 3]
    torch.testing.assert_close(step, centre[1:] - centre[:1], atol=1e-3, rtol=0)


def test_larger_decoded_disparity_is_nearer() -> None:
    decoded = maps()
    found = read(decoded).disparity
    assert found is not None
    order = decoded.disparity.flatten().argsort()
    assert (found.flatten()[order].diff() >= 0).all()


@pytest.mark.parametrize(
    ("field", "left_out"),
    [("point_map", []), ("disparity", ["disparity"]), ("ray_moment", ["ray_map", "ray_c2w"])],
)
def test_what_is_not_finite_never_gets_through(field: str, left_out: list[str], caplog) -> None:
    decoded = maps()
    bad = getattr(decoded, field).clone()
    bad[1, 2, 3] = torch.inf
    found = read(replace(decoded, **{field: bad}))
    for name, tensor in found.tensors().items():
        if tensor.is_floating_point():
            assert torch.isfinite(tensor).all(), name
    assert [n for n in ("disparity", "ray_map", "ray_c2w") if getattr(found, n) is None] == left_out
    assert found.valid is not None
    assert bool(found.valid[1, 2, 3]) == (field != "point_map")
    named = {"ray_moment": "ray_map"}.get(field, field)
    assert found.provenance["not_finite"]["frames"] == {named: [1]}
    share = 0.0 if field == "ray_moment" else 1 / (T * H * W)
    assert found.provenance["not_finite"]["share_of_pixels"] == pytest.approx(share)
    assert "left out" in caplog.text


def test_coarse_rays_are_the_means_of_blocks() -> None:
    direction, moment, _, _ = rays()
    coarse = coarse_rays(torch.cat([direction, moment], -1))
    assert coarse.shape == (T, 2, 3, 6)
    block = direction[1, 8:, 16:].reshape(-1, 3).mean(0)
    torch.testing.assert_close(coarse[1, 1, 2, :3], block / block.norm())
    torch.testing.assert_close(coarse[1, 1, 2, 3:], moment[1, 8:, 16:].reshape(-1, 3).mean(0))


def test_what_the_network_does_not_predict_is_not_there() -> None:
    points = maps().point_map
    points[1, 2, 3] = torch.nan
    found = read(DecodedMaps(points))
    assert (found.disparity, found.ray_map, found.ray_c2w) == (None, None, None)
    assert found.provenance["not_finite"] == {
        "share_of_pixels": pytest.approx(1 / (T * H * W)), "cameras": [], "frames": {"point_map": [1]}
    }  # fmt: skip
    direction, moment, _, _ = rays()
    with_rays = read(DecodedMaps(maps().point_map, direction, moment))
    assert with_rays.ray_c2w is not None
    assert with_rays.disparity is None
