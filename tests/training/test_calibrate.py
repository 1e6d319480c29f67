import pytest
import torch

from geo4d.models.tiny.calibration import Calibration
from geo4d.models.tiny.config import smallest_preset
from geo4d.models.tiny.model import TinyModel
from geo4d.training.calibrate import clip_window, fit_calibration
from geo4d.training.data import TrainingClip

T, SIZE, SMALL = 3, (64, 96), (16, 24)


def clip(*, sky: bool = False) -> TrainingClip:
    g = torch.Generator().manual_seed(0)
    depth = 2 + torch.rand(T, *SIZE, generator=g)
    if sky:
        depth[:] = torch.inf
    disparity = torch.full((T, *SMALL), 0.5)
    disparity[:, :, :4] = 0  # the sweep says nothing there
    K = torch.tensor([[80.0, 0, 48], [0, 80, 32], [0, 0, 1]]).repeat(T, 1, 1)
    return TrainingClip(
        rgb=torch.randint(0, 255, (T, *SIZE, 3), generator=g, dtype=torch.uint8),
        depth=depth.half(),
        intrinsics=K,
        c2w=torch.eye(4).repeat(T, 1, 1),
        evidence_disparity=disparity.half(),
        evidence_confidence=torch.full((T, *SMALL), 0.9).half(),
        evidence_intrinsics=K,
        evidence_c2w=torch.eye(4).repeat(T, 1, 1),
        evidence_trust=torch.full((T,), 0.8),
    )


def test_a_clip_looks_as_at_inference() -> None:
    window, evidence = clip_window(clip(), 7)
    assert window.index == 7
    assert window.size == SIZE
    assert window.rgb.max() <= 1
    assert evidence.points.shape == (T, *SMALL, 3)
    torch.testing.assert_close(evidence.points[:, :, 4:, 2], torch.full((T, SMALL[0], SMALL[1] - 4), 2.0))
    assert not evidence.mask[:, :, :4].any()
    assert evidence.mask[:, :, 4:].all()
    assert evidence.intrinsics is not None
    torch.testing.assert_close(evidence.intrinsics[0], torch.tensor([[20.0, 0, 12], [0, 20, 8], [0, 0, 1]]))
    assert evidence.camera_confidence is not None
    assert evidence.camera_confidence.tolist() == pytest.approx([0.8] * T)


@pytest.fixture(scope="module")
def model() -> TinyModel:
    torch.manual_seed(0)
    model = TinyModel(smallest_preset())
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    model.codec.disparity_basis.normal_(0, 0.1)
    model.codec.point_basis.normal_(0, 0.1)
    return model


def test_spreads_are_brought_to_the_errors_that_are_seen(model: TinyModel) -> None:
    before = model.calibration
    found = fit_calibration(model, lambda number: clip(), [0, 1])
    assert isinstance(found, Calibration)
    assert found != Calibration()  # something was learned
    assert model.calibration is before  # and is the caller's to put in


def test_clips_of_sky_alone_say_nothing_and_leave_the_model_as_it_was(model: TinyModel) -> None:
    before = model.calibration
    with pytest.raises(ValueError, match="expected clips that show surfaces"):
        fit_calibration(model, lambda number: clip(sky=True), [0])
    assert model.calibration is before
