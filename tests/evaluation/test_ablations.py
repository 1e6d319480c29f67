from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from geo4d.evaluation.ablations import PlainPointDecoder, WithoutModalities, from_prediction, variants
from geo4d.evaluation.published import PUBLISHED
from geo4d.models.base import PredictorInfo
from geo4d.types import Prediction


def test_variants_follow_the_papers_tables():
    for kind in ("steps", "stride", "modalities", "vae"):
        names = set(variants(kind, {"seed": 0}))
        assert names <= {row.method for row in PUBLISHED[f"ablation/{kind}"]}
    assert variants("steps", {"seed": 3})["5 steps"] == ({"seed": 3, "num_steps": 5}, None)
    with pytest.raises(ValueError, match="stride"):
        variants("colour", {})


def prediction():
    return Prediction(
        frame_indices=torch.arange(2),
        times_s=torch.arange(2).double(),
        window_index=0,
        point_map=torch.ones(2, 4, 4, 3),
        disparity=torch.rand(2, 4, 4),
        ray_map=torch.ones(2, 4, 4, 6),
        ray_c2w=torch.eye(4).repeat(2, 1, 1),
    )


def test_a_modality_can_be_kept_alone():
    info = PredictorInfo("fake", "", "", "", 16, 4)
    common = {
        "info": info,
        "size_for": lambda size: size,
        "memory_bytes": lambda _: 0,
        "prepare": lambda _: {},
    }
    predictor = SimpleNamespace(predict=lambda *_, **__: prediction(), **common)
    only = WithoutModalities(predictor, "disparity")
    kept = only.predict(None, seed=0)
    assert kept.disparity is not None
    assert kept.point_map is None
    assert kept.ray_map is None
    assert only.size_for((3, 4)) == (3, 4)
    assert only.info.config == {"ablation": "only disparity"}
    rays = WithoutModalities(predictor, "ray_map+disparity").predict(None, seed=0)
    assert rays.point_map is None
    assert rays.ray_c2w is not None
    assert rays.size == (4, 4)
    with pytest.raises(ValueError, match="keep"):
        WithoutModalities(predictor, "colour")
    without = SimpleNamespace(predict=lambda *_, **__: replace(prediction(), disparity=None), **common)
    with pytest.raises(ValueError, match="disparity"):
        WithoutModalities(without, "disparity").predict(None)


def test_plain_decoder_has_one_spread():
    vae = SimpleNamespace(decode=lambda z: torch.ones(z.shape[0], 3, 8, 8), scale=2)
    decoded = PlainPointDecoder(vae).decode_with_uncertainty(torch.zeros(2, 4, 1, 1))
    assert decoded.shape == (2, 4, 8, 8)
    assert bool((decoded[:, 3] == 0).all())
    assert PlainPointDecoder(vae).scale == 2


def test_a_window_is_scored_as_the_network_left_it():
    guess = from_prediction(prediction())
    assert guess.quantity == "disparity"
    assert guess.scale_kind == "affine"
    assert guess.c2w.shape == (2, 4, 4)
