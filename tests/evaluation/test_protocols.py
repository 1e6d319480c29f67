"""Alignment rules of the protocols on predictions whose answer is known."""

import pytest
import torch

from geo4d.evaluation.l1 import DegenerateInput
from geo4d.evaluation.protocols import (
    PROTOCOLS,
    DepthProtocol,
    PointProtocol,
    align_depth,
    fit_depth,
    fit_points,
    geo4d,
    geometrycrafter,
    valid_depth,
)

REFERENCE = torch.linspace(1, 40, 200)


@pytest.mark.parametrize(
    "alignment", ["median_scale", "median_ratio", "scale_l1", "scale_l2", "scale_shift_l1", "scale_shift_l2"]
)
def test_every_alignment_undoes_a_scale(alignment):
    protocol = DepthProtocol(alignment=alignment)
    predicted = REFERENCE / 7
    fit = fit_depth(predicted, REFERENCE, protocol)
    assert torch.allclose(align_depth(predicted, *fit, protocol).float(), REFERENCE, rtol=1e-5)


@pytest.mark.parametrize("alignment", ["scale_shift_l1", "scale_shift_l2"])
@pytest.mark.parametrize("quantity", ["depth", "disparity"])
def test_affine_alignment_undoes_scale_and_shift_in_its_space(alignment, quantity):
    protocol = DepthProtocol(alignment=alignment, space="native")
    truth = REFERENCE if quantity == "depth" else 1 / REFERENCE
    predicted = 0.2 * truth + 0.3
    fit = fit_depth(predicted, REFERENCE, protocol, quantity=quantity)
    aligned = align_depth(predicted, *fit, protocol, quantity=quantity)
    assert torch.allclose(aligned.float(), REFERENCE, rtol=1e-3)


def test_none_leaves_metres_alone():
    protocol = DepthProtocol(alignment="none")
    assert fit_depth(REFERENCE / 2, REFERENCE, protocol) == (1.0, 0.0)


def test_limits_and_clipping_of_the_papers():
    settings = geo4d().depth
    depth = torch.tensor([0.0, -1.0, 0.5, 69.9, 70.0, float("inf"), float("nan")])
    assert valid_depth(depth, settings).tolist() == [False, False, True, True, False, False, False]
    assert align_depth(torch.tensor([100.0, -5.0]), 1.0, 0.0, settings).tolist() == pytest.approx([70, 1e-5])
    assert geo4d(max_depth=None).depth.max_depth is None
    crafter = geometrycrafter(max_depth=10, weighted=False).depth
    assert valid_depth(torch.tensor([5e-4, 2e-3, 9.9, 10.0]), crafter).tolist() == [False, True, True, False]
    assert crafter.average == "frame"


def test_weights_are_of_the_squared_residual():
    protocol = DepthProtocol(alignment="scale_l2", weighted=True)
    p, r = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 10.0])
    weight = (r + 1e-6) ** -2
    expected = float((weight * r).sum() / weight.sum())
    assert fit_depth(p, r, protocol)[0] == pytest.approx(expected, rel=1e-5)
    assert fit_depth(p, r, protocol, weighted=False)[0] == pytest.approx(5.5)


def test_points_share_one_factor():
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 0, 5])
    assert fit_points(points / 3, points, PointProtocol()) == pytest.approx(3, rel=1e-5)
    assert fit_points(points / 3, points, PointProtocol(weighted=True)) == pytest.approx(3, rel=1e-5)
    assert fit_points(points / 3, points, PointProtocol(alignment="none")) == 1
    with pytest.raises(DegenerateInput):
        fit_points(torch.zeros(5, 3), torch.ones(5, 3), PointProtocol())


def test_undetermined_fits_are_refused():
    for alignment in ("scale_shift_l1", "scale_shift_l2"):
        with pytest.raises(DegenerateInput):
            fit_depth(torch.ones(10), REFERENCE[:10], DepthProtocol(alignment=alignment))
    with pytest.raises(DegenerateInput, match="no valid pixel"):
        fit_depth(torch.zeros(0), torch.zeros(0), DepthProtocol())


def test_protocols_name_themselves():
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.source
