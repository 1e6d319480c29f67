import pytest
import torch

from geo4d.errors import InputError
from geo4d.run.spool import EVIDENCE, RAY_GRID, Spool, window_bytes
from geo4d.types import Prediction, Window
from tests.support.truth import BoxWorld, TruthPredictor


def predict(index=0, frames=(3, 4, 5), size=(24, 32), **options) -> Prediction:
    world = BoxWorld(size)
    indices = torch.tensor(frames)
    window = Window(torch.zeros(len(frames), *size, 3), indices, indices.double() / 10, index, 10.0)
    return TruthPredictor(world, **options).predict(window, seed=5)


def test_round_trip_within_the_precision(tmp_path):
    prediction = predict(index=7)
    for precision, tolerance in (("float16", 6e-4), ("float32", 1e-7)):
        spool = Spool(tmp_path / precision, precision)
        spool.write(prediction)
        back = spool.read(7)
        assert back is not None
        assert (back.window_index, back.seed, back.point_frame, back.point_z_offset) == (7, 5, "window", 0.0)
        assert back.provenance == {"predictor": "truth"}
        assert torch.equal(back.frame_indices, prediction.frame_indices)
        assert torch.equal(back.times_s, prediction.times_s)
        assert torch.equal(back.valid, prediction.valid)
        assert torch.equal(back.ray_c2w, prediction.ray_c2w)
        for name in ("point_map", "point_uncertainty", "disparity"):
            before, after = getattr(prediction, name), getattr(back, name)
            assert after.dtype == torch.float32
            assert torch.allclose(before, after, rtol=tolerance, atol=tolerance * 1e-3 * float(before.max()))


def test_any_unit_survives_half_precision(tmp_path):
    spool = Spool(tmp_path)
    for factor in (1e-9, 1e9):
        prediction = predict()
        scaled = Prediction(**{**vars(prediction), "point_map": prediction.point_map * factor})
        spool.write(scaled)
        error = (spool.read(0).point_map - scaled.point_map).abs() / scaled.point_map.norm(
            dim=-1, keepdim=True
        )
        assert float(error.max()) < 1e-3


def test_second_write_of_what_was_read_changes_nothing(tmp_path):
    spool = Spool(tmp_path)
    spool.write(predict())
    first = spool.read(0)
    spool.write(first)
    second = spool.read(0)
    assert all(torch.equal(value, second.tensors()[name]) for name, value in first.tensors().items())


def test_masks_odd_sizes_and_carry_are_exact(tmp_path):
    prediction = predict(size=(11, 13), carries=True)
    valid = torch.rand(3, 11, 13) > 0.5
    carry = {"latent": torch.randn(2, 3).bfloat16(), "steps": torch.tensor([4])}
    spool = Spool(tmp_path)
    spool.write(Prediction(**{**vars(prediction), "valid": valid, "sky": ~valid, "carry": carry}))
    back = spool.read(0)
    assert torch.equal(back.valid, valid)
    assert torch.equal(back.sky, ~valid)
    assert back.carry["latent"].dtype == torch.bfloat16
    assert all(torch.equal(back.carry[name], carry[name]) for name in carry)


def test_rays_are_kept_on_a_coarse_grid_and_stay_rays(tmp_path):
    world = BoxWorld((96, 160))
    from geo4d.geometry.maps import cameras_to_ray_map, ray_map_to_cameras

    poses = torch.stack([world.c2w(t) for t in (0, 30)])
    fine = cameras_to_ray_map(world.intrinsics().expand(2, 3, 3), poses, (96, 160))
    spool = Spool(tmp_path)
    spool.write(Prediction(**{**vars(predict(frames=(0, 1), size=(96, 160))), "ray_map": fine}))
    coarse = spool.read(0).ray_map
    assert max(coarse.shape[1:3]) == RAY_GRID
    assert torch.allclose(coarse[..., :3].norm(dim=-1), torch.ones(()), atol=1e-6)
    assert float((coarse[..., :3] * coarse[..., 3:]).sum(-1).abs().max()) < 1e-3
    cameras = ray_map_to_cameras(coarse)
    assert torch.allclose(cameras[:, :3, 3], poses[:, :3, 3], atol=5e-3)


def test_size_is_as_planned_and_damage_means_compute_again(tmp_path, caplog):
    spool = Spool(tmp_path)
    assert spool.read(3) is None
    size = spool.write(predict(index=3, size=(48, 64)))
    assert size == spool.path(3).stat().st_size <= window_bytes(3, (48, 64), "float16") + 8192
    spool.path(3).write_bytes(b"nonsense")
    assert spool.read(3) is None
    assert "computed again" in caplog.text


def test_sequence_is_lazy_counts_from_its_first_frame_and_takes_tries(tmp_path):
    spool = Spool(tmp_path)
    for index in range(3):
        spool.write(predict(index=index, frames=(10 + index, 11 + index)))
    spool.write(predict(index=1, frames=(11, 12), noise=0.2), attempt=1)
    sequence = spool.sequence([(0, 0), (1, 1), (2, 0)], first_frame=10)
    assert len(sequence) == 3
    assert [p.frame_indices.tolist() for p in sequence] == [[0, 1], [1, 2], [2, 3]]
    assert not torch.equal(sequence[1].point_map, spool.read(1, 0).point_map)
    assert sequence[-1].window_index == 2
    assert [p.window_index for p in sequence[1:]] == [1, 2]


def test_what_predictions_say_of_themselves_is_read_without_their_maps(tmp_path, monkeypatch):
    spool = Spool(tmp_path)
    for index, told in ((4, {"not_finite": {"share_of_pixels": 0.25}}), (5, {})):
        prediction = predict(index=index)
        spool.write(Prediction(**{**vars(prediction), "provenance": told}), attempt=index % 2)
    monkeypatch.setattr("geo4d.run.spool.load_arrays", None)
    assert spool.sequence([(4, 0), (5, 1)]).provenance() == {
        4: {"not_finite": {"share_of_pixels": 0.25}},
        5: {},
    }
    spool.path(5, 1).write_bytes(spool.path(5, 1).read_bytes()[:-200])
    with pytest.raises(InputError, match="damaged"):
        spool.sequence([(5, 1)]).provenance()
    with pytest.raises(InputError, match="window_000006"):
        spool.sequence([(6, 0)]).provenance()


def test_evidence_has_files_of_its_own(tmp_path):
    spool = Spool(tmp_path)
    assert spool.evidence_windows() == []
    for index in (12, 3):
        spool.write(predict(index))
        spool.write(predict(index), EVIDENCE)
    spool.write(predict(4))
    assert spool.evidence_windows() == [3, 12]


def test_windows_that_were_swapped_are_computed_again(tmp_path, caplog):
    spool = Spool(tmp_path)
    for index in (0, 1):
        spool.write(predict(index))
    a, b, aside = spool.path(0), spool.path(1), tmp_path / "aside"
    a.replace(aside)
    b.replace(a)
    aside.replace(b)
    assert spool.read(0) is None
    assert spool.read(1) is None
    assert "computed again" in caplog.text


def test_a_flipped_bit_in_a_window_is_never_a_value(tmp_path):
    spool = Spool(tmp_path)
    spool.write(predict())
    whole = spool.path(0).read_bytes()
    for position in range(0, len(whole), len(whole) // 60):
        spool.path(0).write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        assert spool.read(0) is None
