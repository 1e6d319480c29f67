"""Tokens, picture preparation, resampler."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from geo4d.models.geo4d.conditioning import (
    PROMPT,
    Resampler,
    compute_constants,
    prepare_picture,
    prompt_tokens,
)


def test_prompt_tokens() -> None:
    tokens = prompt_tokens(PROMPT)
    assert tokens.shape == (1, 77)
    assert tokens[0, 0] == 49406
    assert tokens[0].argmax() == 18
    assert prompt_tokens("")[0, :3].tolist() == [49406, 49407, 0]
    with pytest.raises(ValueError, match="published prompt"):
        prompt_tokens("a cat")


def blurred(rows: np.ndarray, factor: float) -> np.ndarray:
    """Plain Gaussian blur along the first axis with reflected borders."""
    sigma = max((factor - 1) / 2, 0.001)
    taps = int(max(4 * sigma, 3))
    taps += taps % 2 == 0
    weights = np.array([math.exp(-((i - taps // 2) ** 2) / (2 * sigma**2)) for i in range(taps)])
    weights /= weights.sum()
    padded = np.pad(rows, [(taps // 2, taps // 2), *[(0, 0)] * (rows.ndim - 1)], mode="reflect")
    return sum(w * padded[i : i + len(rows)] for i, w in enumerate(weights))


def test_blur_before_shrinking() -> None:
    picture = torch.rand(1, 3, 64, 40, dtype=torch.float64) * 2 - 1
    factors = (64 / 16, 40 / 16)
    plain = picture[0].permute(1, 2, 0).numpy()
    plain = blurred(plain, factors[0])
    plain = blurred(plain.transpose(1, 0, 2), factors[1]).transpose(1, 0, 2)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(plain).permute(2, 0, 1)[None], size=(16, 16), mode="bicubic", align_corners=True
    )
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float64)[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(prepare_picture(picture, 16), ((expected + 1) / 2 - mean) / std)


def test_enlarging_does_not_blur() -> None:
    picture = torch.rand(1, 3, 16, 16)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    torch.testing.assert_close(prepare_picture(picture, 16), ((picture + 1) / 2 - mean) / std)


def test_resampler_frames_are_independent(make_part: Callable[..., Resampler]) -> None:
    resampler = make_part("resampler")
    tokens = torch.randn(2, 16, 5, 40)
    out = resampler(tokens)
    assert out.shape == (2, 256, 24)
    changed = tokens.clone()
    changed[:, 3] += 1
    same = (resampler(changed) - out).abs().amax(-1).reshape(2, 16, 16).amax(-1) < 1e-5
    assert same.sum() == 2 * 15
    assert not same[:, 3].any()
    assert resampler(tokens[:, 0]).shape == (2, 256, 24)
    with pytest.raises(ValueError, match="16 frames, got 4"):
        resampler(tokens[:, :4])


def test_constants(make_part: Callable[..., torch.nn.Module]) -> None:
    constants = compute_constants(make_part("text"), make_part("image"), make_part("resampler"))
    assert constants.text.shape == constants.empty_text.shape == (1, 77, 24)
    assert constants.image.shape == (1, 256, 24)
    assert not torch.allclose(constants.text, constants.empty_text)
