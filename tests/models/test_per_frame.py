from dataclasses import dataclass, field

import pytest
import torch

from geo4d.geometry.cameras import centred_intrinsics, unproject
from geo4d.models.base import PredictorInfo
from geo4d.models.per_frame import PerFramePrior
from geo4d.types import Prediction, Window

SIZE, RUNS_AT = (24, 40), (12, 16)


@dataclass
class Slope:
    """Says a disparity that falls from left to right, the darker the picture the nearer; its last column is sky."""

    asked: list[Window] = field(default_factory=list)
    info: PredictorInfo = field(
        default_factory=lambda: PredictorInfo("slope", "", "none", "", window_length=4, window_stride=2)
    )
    silent: bool = False

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        return RUNS_AT

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        return 0

    def prepare(self, windows) -> dict[str, torch.Tensor]:
        return {}

    def predict(self, window: Window, *, seed: int, **evidence) -> Prediction:
        assert not evidence
        self.asked.append(window)
        disparity = (2 - torch.linspace(0, 1, RUNS_AT[1])).expand(1, *RUNS_AT) - window.rgb.mean()
        valid = torch.ones(1, *RUNS_AT, dtype=torch.bool)
        valid[..., -1] = False
        return Prediction(
            frame_indices=window.frame_indices,
            times_s=window.times_s,
            window_index=window.index,
            disparity=None if self.silent else disparity,
            intrinsics=centred_intrinsics(torch.tensor([10.0]), RUNS_AT),
            valid=valid,
        )


def window() -> Window:
    shades = torch.tensor([0.0, 0.25, 0.5])[:, None, None, None]
    return Window(
        shades.expand(3, *SIZE, 3).contiguous(), torch.arange(7, 10), torch.arange(3).double() / 10, 5, 10.0
    )


def test_every_frame_is_asked_for_by_itself_and_looks_the_same_wherever_it_stands() -> None:
    model = Slope()
    PerFramePrior(model)(window())
    assert [asked.num_frames for asked in model.asked] == [1, 1, 1]
    assert {asked.index for asked in model.asked} == {0}
    assert {int(asked.frame_indices) for asked in model.asked} == {0}
    assert {asked.size for asked in model.asked} == {RUNS_AT}
    assert [round(float(asked.rgb.mean()), 4) for asked in model.asked] == [0, 0.25, 0.5]
    # 24 x 40 squeezed into 12 x 16: a pixel there is as high as 2 and as wide as 2.5 of the source's.
    assert model.asked[0].pixel_aspect == pytest.approx((12 / 24) / (16 / 40))


def test_points_are_those_of_the_disparity_at_the_size_of_the_frames() -> None:
    found = PerFramePrior(Slope())(window())
    assert found.points.shape == (3, *SIZE, 3)
    x = torch.arange(SIZE[1]) + 0.5
    at = (x / SIZE[1] * RUNS_AT[1] - 0.5).clamp(0, RUNS_AT[1] - 1)  # where the columns lie in the small map
    for t, shade in enumerate((0.0, 0.25, 0.5)):
        expected = 1 / (2 - at / (RUNS_AT[1] - 1) - shade)
        torch.testing.assert_close(found.points[t, 3, :, 2], expected, atol=1e-4, rtol=1e-4)
    assert found.intrinsics is not None
    torch.testing.assert_close(found.intrinsics[0], torch.tensor([[25.0, 0, 20], [0, 20, 12], [0, 0, 1]]))
    torch.testing.assert_close(found.points, unproject(found.points[..., 2], found.intrinsics))


def test_the_sky_is_not_in_the_mask() -> None:
    mask = PerFramePrior(Slope())(window()).mask
    assert mask[0, :, :37].all()
    assert not mask[0, :, 38:].any()
    bright = Window(torch.full((1, *SIZE, 3), 1.5), torch.arange(1), torch.zeros(1).double(), 0, 10.0)
    far = PerFramePrior(Slope())(bright).mask[0]  # the disparity falls to nothing in the middle
    assert far[:, :17].all()
    assert not far[:, 22:].any()


def test_a_model_without_disparity_cannot_be_a_prior() -> None:
    with pytest.raises(ValueError, match="expected disparity and intrinsics from slope"):
        PerFramePrior(Slope(silent=True))(window())
