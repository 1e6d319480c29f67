import numpy as np
import pytest
import torch
from PIL import Image

from geo4d.cameras.types import MotionCameras, ShotMotion
from geo4d.errors import InputError
from geo4d.evidence.frames import fit_motion
from geo4d.evidence.masks import grow, iter_motion_probability, mask_iou, motion_masks, read_masks, tidy_mask
from geo4d.formats.images import save_image


def true_cameras(scene):
    """The cameras of the scene as a solver would hand them over, so that the masks alone are tested."""
    num_frames, size = len(scene.c2w), (scene.rgb.shape[1], scene.rgb.shape[2])
    shot = ShotMotion(
        0, num_frames, "parallax", float(scene.intrinsics[0, 0, 0]), 0.01, 5.0, 0.0, 300, 0.2, "truth"
    )
    share = torch.tensor([0.01, 0.99])
    depths = torch.stack(
        [torch.quantile(d[~m], share) for d, m in zip(scene.depth, scene.dynamic, strict=True)]
    )
    return MotionCameras(
        c2w=torch.linalg.inv(scene.c2w[:1]).float() @ scene.c2w.float(),
        intrinsics=scene.intrinsics,
        size=size,
        confidence=torch.ones(num_frames),
        shots=(shot,),
        points=torch.zeros(0, 3),
        point_shot=torch.zeros(0, dtype=torch.long),
        depth_range=depths,
    )


def moving_ball(t):
    return torch.tensor([-0.5 + 0.09 * t, 0.1, 1.8], dtype=torch.float64), 0.45


def test_a_moving_ball_is_found_and_nothing_else(make_room):
    scene = make_room(num_frames=10, size=(108, 144), focal=110.0, travel=0.25, turn=0.05, ball=moving_ball)
    motion = fit_motion(scene.rgb, known_intrinsics=scene.intrinsics[0])
    masks = torch.stack(list(motion_masks(motion, scene.rgb)))
    assert masks.shape == scene.dynamic.shape
    assert mask_iou(masks, scene.dynamic) > 0.5


def test_a_still_ball_is_part_of_the_scene(make_room):
    scene = make_room(num_frames=8, size=(108, 144), focal=110.0, travel=0.3, ball=lambda t: moving_ball(4))
    motion = fit_motion(scene.rgb, known_intrinsics=scene.intrinsics[0])
    masks = torch.stack(list(motion_masks(motion, scene.rgb)))
    assert masks.float().mean() < 0.03


def test_a_static_camera_sees_the_mover(make_room):
    scene = make_room(num_frames=6, size=(72, 96), focal=80.0, travel=0.0, turn=0.0, ball=moving_ball)
    motion = fit_motion(scene.rgb)
    masks = torch.stack(list(motion_masks(motion, scene.rgb)))
    assert motion.shots[0].kind == "static"
    assert mask_iou(masks, scene.dynamic) > 0.4


def test_what_a_mover_hides_for_a_while_is_not_marked(make_room):
    scene = make_room(num_frames=9, size=(108, 144), focal=110.0, travel=0.25, turn=0.05, ball=moving_ball)
    masks = torch.stack(list(motion_masks(true_cameras(scene), scene.rgb)))
    assert mask_iou(masks, scene.dynamic) > 0.6
    hidden_later = scene.dynamic[5] & ~grow(scene.dynamic[3], 2)
    assert hidden_later.sum() > 200
    assert masks[3][hidden_later].float().mean() < 0.35


def test_a_blank_wall_is_not_sure_to_move(make_room):
    scene = make_room(num_frames=9, size=(108, 144), focal=110.0, travel=0.4, turn=0.3)
    shade = torch.linspace(0.4, 0.6, 60)[None, None, :, None]
    noise = 0.004 * torch.randn(9, 108, 60, 1, generator=torch.Generator().manual_seed(0))
    rgb = scene.rgb.clone()
    rgb[:, :, :60] = shade + noise  # its shading stays where it is in the picture: no flow to trust
    probability = torch.stack(list(iter_motion_probability(true_cameras(scene), rgb)))
    assert (probability > 0.8).float().mean() < 0.01


def test_hopeless_frames_have_no_masks():
    video = torch.zeros(4, 32, 48, 3)
    probability = list(iter_motion_probability(fit_motion(video), video))
    assert len(probability) == 4
    assert all(p.shape == (32, 48) and not p.any() for p in probability)


def test_fewer_frames_than_cameras_are_refused(make_room):
    scene = make_room(num_frames=3, size=(48, 64))
    motion = fit_motion(scene.rgb)
    with pytest.raises(ValueError, match="expected 3 frames"):
        list(iter_motion_probability(motion, scene.rgb[:1]))


def test_growing_reaches_exactly_the_radius():
    mask = torch.zeros(21, 21, dtype=torch.bool)
    mask[10, 10] = True
    grown = grow(mask, 4)
    ys, xs = torch.meshgrid(torch.arange(21) - 10, torch.arange(21) - 10, indexing="ij")
    distance = (ys**2 + xs**2).double().sqrt()
    assert grown[distance < 3.8].all()
    assert not grown[distance > 4.3].any()
    assert torch.equal(grow(mask, 0), mask)


def test_specks_and_pinholes_go():
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[5:20, 5:20] = True
    mask[10, 10] = False
    mask[35, 35] = True
    tidy = tidy_mask(mask, 0.01)
    assert tidy[10, 10]
    assert not tidy[35, 35]
    assert tidy[5:20, 5:20].all()
    assert not tidy_mask(torch.zeros(8, 8, dtype=torch.bool), 0.01).any()
    assert tidy_mask(torch.ones(8, 8, dtype=torch.bool), 0.01).all()


def test_masks_of_the_user_are_read_and_resized(tmp_path):
    for t in range(4):
        picture = torch.zeros(16, 24, 3)
        picture[:, : 6 * t] = 1.0
        save_image(tmp_path / f"{t:03d}.png", picture.numpy())
    found = list(read_masks(tmp_path, [1, 3], (32, 48)))
    assert [float(m.float().mean()) for m in found] == pytest.approx([0.25, 0.75])
    exact = list(read_masks(tmp_path, [10, 20, 30, 40], (16, 24)))
    assert [float(m.float().mean()) for m in exact] == pytest.approx([0, 0.25, 0.5, 0.75])
    with pytest.raises(InputError, match="expected masks for 2 frames"):
        list(read_masks(tmp_path, [1, 9], (16, 24)))


def save_as_xmem_does(path, numbers, palette=True):
    """``Image.fromarray(mask)``, the palette of DAVIS where there is one, ``save``."""
    image = Image.fromarray(numbers.astype(np.uint8))
    if palette:
        # colour k spreads the bits of k over the highest bits of red, green and blue
        bits = [[(k >> (3 * b + c) & 1) << (7 - b) for b in range(3)] for k in range(256) for c in range(3)]
        image.putpalette([sum(colour) for colour in bits])
    image.save(path)


@pytest.mark.parametrize("palette", [True, False])
def test_object_numbers_of_xmem_are_masks(tmp_path, palette):
    for t in range(3):
        numbers = np.zeros((16, 24), np.uint8)
        numbers[4:8, : 6 + 6 * t] = 1
        numbers[12:, 20:] = 5
        save_as_xmem_does(tmp_path / f"{t:05d}.png", numbers, palette)
    if palette:
        with Image.open(tmp_path / "00000.png") as image:
            assert image.mode == "P"
            assert image.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
    found = torch.stack(list(read_masks(tmp_path, [0, 1, 2], (16, 24), "xmem")))
    assert found[:, 4:8].float().mean((1, 2)).tolist() == pytest.approx([0.25, 0.5, 0.75])
    assert found[:, 12:, 20:].all()
    assert int(found.sum()) == 4 * (6 + 12 + 18) + 3 * 16
    assert not torch.stack(list(read_masks(tmp_path, [0, 1, 2], (16, 24))))[:, 4:8].any()  # not by brightness
    with pytest.raises(InputError, match="expected masks for 2 frames"):
        list(read_masks(tmp_path, [1, 9], (16, 24), "xmem"))


def test_object_numbers_need_png_files(tmp_path):
    save_image(tmp_path / "0.jpg", np.zeros((16, 24, 3), np.float32))
    for place in (tmp_path, tmp_path / "0.jpg", tmp_path / "nothing"):
        with pytest.raises(InputError, match="PNG files with object numbers"):
            list(read_masks(place, [0], (16, 24), "xmem"))
