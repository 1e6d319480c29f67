import pytest
import torch

from geo4d.evidence.cost import SweepConfig, relative_projections
from geo4d.evidence.sweep import _enlarged, _refine, choose_neighbours, plane_sweep
from geo4d.optimise.threads import one_thread


def within(disparity, depth, ratio=1.25):
    r = (1 / disparity) / depth
    return (torch.maximum(r, 1 / r) < ratio).float()


def test_finds_the_depth_of_a_textured_room(make_room):
    scene = make_room(num_frames=6, size=(60, 80), focal=70.0, travel=0.6)
    disparity, confidence = plane_sweep(
        scene.rgb, scene.intrinsics, scene.c2w, disparities=(0.8, 8.0, 32), references=[1, 3]
    )
    good = within(disparity, scene.depth[[1, 3]])
    assert good.mean() > 0.95
    assert good[confidence > 0.5].mean() > 0.98
    assert (confidence > 0.5).float().mean() > 0.4


@pytest.mark.parametrize("size", [(60, 80), (61, 79)])
def test_the_search_in_smaller_pictures_finds_what_the_full_size_finds(make_room, size):
    scene = make_room(num_frames=5, size=(62, 80), focal=70.0, travel=0.6)
    video, depth = (maps[:, : size[0], : size[1]] for maps in (scene.rgb, scene.depth[[1, 3]]))
    good = []
    for shrink in (1, 2):
        disparity, confidence = plane_sweep(
            video,
            scene.intrinsics,
            scene.c2w,
            disparities=(0.8, 8.0, 32),
            references=[1, 3],
            config=SweepConfig(shrink=shrink),
        )
        assert disparity.shape == (2, *size)
        assert disparity.min() > 0
        right = within(disparity, depth)
        assert right[confidence > 0.5].mean() > 0.95
        good.append(right.mean())
    assert good[1] > good[0] - 0.02


def test_small_pictures_are_searched_as_they_are(make_room):
    scene = make_room(num_frames=3, size=(40, 56), focal=50.0, travel=0.4)
    found = [
        plane_sweep(
            scene.rgb,
            scene.intrinsics,
            scene.c2w,
            disparities=(0.8, 8.0, 16),
            config=SweepConfig(shrink=shrink),
        )
        for shrink in (1, 2)
    ]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_enlarged_maps_keep_to_the_edges_of_the_picture():
    left = torch.arange(16) < 7  # no multiple of two
    grey = torch.where(left, 0.2, 0.8).expand(1, 12, 16).contiguous()
    small = torch.nn.functional.avg_pool2d(grey, 2)
    value = torch.where(small < 0.5, 1.0, 3.0)
    (enlarged,) = _enlarged(value[:, None], small, grey, 2)
    torch.testing.assert_close(enlarged, torch.where(left, 1.0, 3.0).expand_as(enlarged))


def test_refining_brings_a_disparity_closer_than_the_planes_are(make_room):
    scene = make_room(num_frames=3, size=(60, 80), focal=70.0, travel=0.5)
    grey, truth = scene.rgb.mean(-1), 1 / scene.depth[1:2]
    planes = torch.linspace(1 / 8, 1 / 0.8, 32)[None]
    step = float(planes[0, 1] - planes[0, 0])
    neighbours, reference = torch.tensor([[0, 2]]), torch.tensor([1])
    projections = relative_projections(scene.intrinsics.double(), scene.c2w.double(), reference, neighbours)
    found, raw = _refine(grey, reference, neighbours, projections, truth + step, planes, SweepConfig())
    assert (found - truth).abs().median() < 0.3 * step
    assert raw.median() > 0.8


def test_confidence_ranks_the_errors(make_room):
    scene = make_room(num_frames=5, size=(48, 64), focal=60.0, travel=0.25)
    disparity, confidence = plane_sweep(scene.rgb, scene.intrinsics, scene.c2w, disparities=(0.8, 8.0, 32))
    good = within(disparity, scene.depth, 1.1)
    order = confidence.flatten().argsort()
    worst, best = good.flatten()[order].chunk(4)[0], good.flatten()[order].chunk(4)[-1]
    assert best.mean() > worst.mean() + 0.1


@pytest.mark.parametrize("motion", ["none", "rotation"])
def test_without_parallax_the_confidence_is_zero(make_room, motion):
    scene = make_room(num_frames=4, size=(40, 56), travel=0.0, turn=0.2 if motion == "rotation" else 0.0)
    disparity, confidence = plane_sweep(scene.rgb, scene.intrinsics, scene.c2w, disparities=(0.8, 8.0, 16))
    assert torch.isfinite(disparity).all()
    assert confidence.max() < 1e-3


def test_a_blank_picture_gets_no_confidence(make_room):
    scene = make_room(num_frames=3, size=(32, 40))
    disparity, confidence = plane_sweep(
        torch.zeros_like(scene.rgb), scene.intrinsics, scene.c2w, disparities=(0.8, 8.0, 16)
    )
    assert torch.isfinite(disparity).all()
    assert confidence.max() < 0.05


def test_noise_alone_gets_hardly_any_confidence(make_room):
    scene = make_room(num_frames=5, size=(64, 80), focal=70.0, travel=0.6)
    noise = 0.01 * torch.randn(scene.rgb.shape, generator=torch.Generator().manual_seed(0))
    _, confidence = plane_sweep(0.5 + noise, scene.intrinsics, scene.c2w, disparities=(0.8, 8.0, 32))
    assert (confidence >= 0.2).float().mean() < 0.02
    assert confidence.mean() < 0.08


def test_one_frame_gives_zero_confidence(make_room):
    scene = make_room(num_frames=1, size=(32, 40))
    _, confidence = plane_sweep(scene.rgb, scene.intrinsics, scene.c2w, disparities=(0.8, 8.0, 16))
    assert confidence.max() == 0


def test_the_chunk_size_does_not_change_the_answer(make_room):
    scene = make_room(num_frames=4, size=(32, 40))
    runs = [
        plane_sweep(
            scene.rgb,
            scene.intrinsics,
            scene.c2w,
            disparities=(0.8, 8.0, 16),
            config=SweepConfig(max_volume_bytes=limit),
        )
        for limit in (1, 1 << 28)
    ]
    torch.testing.assert_close(runs[0], runs[1])


def test_references_may_be_shared_among_threads(make_room):
    scene = make_room(num_frames=5, size=(32, 40))
    given = (scene.rgb, scene.intrinsics, scene.c2w)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            shared = plane_sweep(*given, disparities=(0.8, 8.0, 16))
        torch.set_num_threads(1)
        alone = plane_sweep(*given, disparities=(0.8, 8.0, 16))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(shared[0], alone[0])
    assert torch.equal(shared[1], alone[1])


def test_scale_of_the_world_is_the_unit_of_depth(make_room):
    scene = make_room(num_frames=4, size=(40, 48))
    scaled = scene.c2w.clone()
    scaled[:, :3, 3] *= 10
    a, confidence_a = plane_sweep(scene.rgb, scene.intrinsics, scene.c2w, disparities=(0.8, 8.0, 16))
    b, confidence_b = plane_sweep(scene.rgb, scene.intrinsics, scaled, disparities=(8.0, 80.0, 16))
    torch.testing.assert_close(a, 10 * b, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(confidence_a, confidence_b, rtol=1e-2, atol=1e-3)


def test_neighbours_have_parallax_and_lie_on_both_sides(make_room):
    scene = make_room(num_frames=21, size=(48, 64), travel=2.0)
    chosen = choose_neighbours(scene.intrinsics, scene.c2w, (48, 64), torch.full((21,), 0.4), references=[10])
    assert (chosen < 10).sum() == 3
    assert (chosen > 10).sum() == 3
    assert (chosen[0] - 10).abs().min() > 0
    ends = choose_neighbours(scene.intrinsics, scene.c2w, (48, 64), torch.full((21,), 0.4), references=[0])
    assert (ends > 0).all()


def test_refuses_planes_that_do_not_increase(make_room):
    scene = make_room(num_frames=2, size=(16, 16))
    with pytest.raises(ValueError, match="increasing"):
        plane_sweep(scene.rgb, scene.intrinsics, scene.c2w, disparities=torch.tensor([1.0, 0.5, 0.2]))
    with pytest.raises(ValueError, match="near"):
        plane_sweep(scene.rgb, scene.intrinsics, scene.c2w, disparities=(5.0, 1.0, 8))


def test_a_surface_out_of_everyones_sight_is_not_taken_for_a_distant_one():
    """A wall in smooth colours, seen by a camera that moves along it: its last frame shows a strip that no other does."""
    height, width, focal = 48, 96, 80.0
    generator = torch.Generator().manual_seed(3)
    waves, phases = 12 * torch.randn(24, 2, generator=generator), 6.3 * torch.rand(24, generator=generator)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    c2w = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    c2w[:, 0, 3] = torch.tensor([0.0, 0.1, 0.2, 0.4])  # the last strip: 16 pixels at depth 1
    pictures = []
    for right in c2w[:, 0, 3].tolist():
        on_wall = torch.stack([(x - width / 2) / focal + right, (y - height / 2) / focal], -1)
        pictures.append(0.5 + 0.1 * torch.sin(on_wall @ waves.T + phases).sum(-1).clamp(-4, 4))
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]).repeat(4, 1, 1)
    disparity, confidence = plane_sweep(
        torch.stack(pictures)[..., None], K, c2w, disparities=(0.6, 20.0, 32), references=[3]
    )
    good = within(disparity, torch.ones(1, height, width)).bool()
    strip = torch.zeros_like(good)
    strip[..., width - 14 :] = True
    assert (good & (confidence > 0.5))[~strip].float().mean() > 0.7
    assert (~good)[strip].float().mean() > 0.5  # nobody can know
    assert (~good & (confidence > 0.25))[strip].float().mean() < 0.1
