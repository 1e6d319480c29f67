"""Every loss against a slow twin in plain Python, and its gradient against finite differences."""

import math

import pytest
import torch

from geo4d.models.geometrycrafter.decode import DecodedMaps
from geo4d.training.tasks.geometrycrafter import losses

SIZE = (7, 10)


def maps(seed: int, frames: int = 2, dtype: torch.dtype = torch.float64) -> DecodedMaps:
    generator = torch.Generator().manual_seed(seed)
    theta, log_depth, mask = torch.randn(3, frames, *SIZE, generator=generator, dtype=dtype)
    return DecodedMaps(0.6 + 0.1 * theta, 0.4 * log_depth, mask)


def holes(seed: int, frames: int = 2) -> torch.Tensor:
    return torch.rand(frames, *SIZE, generator=torch.Generator().manual_seed(seed)) > 0.2


def pixels(valid: torch.Tensor) -> list[tuple[int, int, int]]:
    return [tuple(index) for index in torch.nonzero(valid).tolist()]


def slow_mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def slow_points(found: DecodedMaps, t: int, row: int, column: int) -> list[float]:
    height, width = SIZE
    diagonal = math.hypot(height, width)
    z = math.exp(min(float(found.log_depth[t, row, column]), 10.0))
    theta = float(found.theta[t, row, column])
    x = (2 * column / (width - 1) - 1) * theta * width / diagonal * z
    y = (2 * row / (height - 1) - 1) * theta * height / diagonal * z
    return [x, y, z]


def slow_normal(found: DecodedMaps, t: int, row: int, column: int) -> list[float]:
    right, left = slow_points(found, t, row, column + 1), slow_points(found, t, row, column - 1)
    below, above = slow_points(found, t, row + 1, column), slow_points(found, t, row - 1, column)
    a = [p - q for p, q in zip(right, left, strict=True)]
    b = [p - q for p, q in zip(below, above, strict=True)]
    n = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    length = math.sqrt(sum(value**2 for value in n))
    return [value / length for value in n]


def test_log_depth_and_theta() -> None:
    predicted, truth, valid = maps(0), maps(1), holes(2)
    for name, loss in (("log_depth", losses.log_depth_loss), ("theta", losses.theta_loss)):
        a, b = getattr(predicted, name), getattr(truth, name)
        slow = slow_mean([abs(float(a[i]) - float(b[i])) for i in pixels(valid)])
        assert float(loss(predicted, b, valid)) == pytest.approx(slow, rel=1e-12)


def test_normals() -> None:
    predicted, truth, valid = maps(0), maps(1), holes(2)
    values = []
    for t in range(2):
        for row in range(1, SIZE[0] - 1):
            for column in range(1, SIZE[1] - 1):
                around = [
                    (row, column),
                    (row - 1, column),
                    (row + 1, column),
                    (row, column - 1),
                    (row, column + 1),
                ]
                if all(bool(valid[t, r, c]) for r, c in around):
                    n, m = slow_normal(predicted, t, row, column), slow_normal(truth, t, row, column)
                    values.append(1 - sum(p * q for p, q in zip(n, m, strict=True)))
    assert len(values) > 10
    assert float(losses.normal_loss(predicted, truth, valid)) == pytest.approx(slow_mean(values), rel=1e-6)


def test_normals_of_a_plane_are_its_normal() -> None:
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    points = torch.stack([x, y, 2 + 0.5 * x - 0.25 * y], -1)[None]
    expected = torch.nn.functional.normalize(torch.tensor([-0.5, 0.25, 1.0]), dim=0)
    torch.testing.assert_close(losses.normals_of_points(points), expected.expand(1, 3, 4, 3))


@pytest.mark.parametrize("alpha", [1, 2, 3, 5])
def test_patches(alpha: int) -> None:
    predicted, truth, valid = maps(0), maps(1), holes(2)
    height, width = SIZE
    values = []
    for t in range(2):
        patches: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for row in range(height):
            for column in range(width):
                if bool(valid[t, row, column]):
                    patches.setdefault((row * alpha // height, column * alpha // width), []).append(
                        (row, column)
                    )
        for members in patches.values():
            a = [math.exp(min(float(predicted.log_depth[t, r, c]), 10.0)) for r, c in members]
            b = [math.exp(min(float(truth.log_depth[t, r, c]), 10.0)) for r, c in members]
            values += [abs((p - slow_mean(a)) - (q - slow_mean(b))) for p, q in zip(a, b, strict=True)]
    found = losses.patch_depth_loss(predicted, truth.log_depth, valid, (alpha,))
    assert float(found) == pytest.approx(slow_mean(values), rel=1e-6)
    twice = losses.patch_depth_loss(predicted, truth.log_depth, valid, (alpha, alpha))
    assert float(twice) == pytest.approx(2 * float(found))


def test_patches_forget_what_is_the_same_over_a_patch() -> None:
    truth, valid = maps(1), holes(2)
    moved = DecodedMaps(truth.theta, (truth.log_depth.exp() + 0.7).log(), truth.mask)
    assert float(losses.patch_depth_loss(moved, truth.log_depth, valid, (1, 2, 3))) < 1e-12


def test_mask_and_identity_and_the_sum() -> None:
    predicted, truth, valid = maps(0), maps(1), holes(2)
    wanted = [1.0 if bool(v) else -1.0 for v in valid.flatten()]
    got = predicted.mask.flatten().tolist()
    mask = slow_mean([(a - b) ** 2 for a, b in zip(got, wanted, strict=True)])
    assert float(losses.mask_loss(predicted, valid)) == pytest.approx(mask)
    generator = torch.Generator().manual_seed(4)
    picture, decoded = torch.rand(2, 2, 3, *SIZE, generator=generator, dtype=torch.float64)
    weights = losses.PointMapWeights(
        theta=3.0, normals=0.3, mask=0.5, patches=2.0, identity=4.0, alphas=(2, 3)
    )
    total, parts = losses.point_map_losses(predicted, truth, valid, picture, decoded, weights)
    squares = [
        (a - b) ** 2 for a, b in zip(picture.flatten().tolist(), decoded.flatten().tolist(), strict=True)
    ]
    assert float(parts["identity"]) == pytest.approx(slow_mean(squares))
    factors = {"log_depth": 1, "theta": 3, "normals": 0.3, "mask": 0.5, "patches": 2, "identity": 4}
    assert parts.keys() == factors.keys()
    assert float(total) == pytest.approx(sum(factors[name] * float(value) for name, value in parts.items()))


def test_a_window_without_a_surface_costs_its_mask_alone() -> None:
    predicted, truth = maps(0), maps(1)
    valid = torch.zeros(2, *SIZE, dtype=torch.bool)
    picture = torch.zeros(2, 3, *SIZE, dtype=torch.float64)
    _, parts = losses.point_map_losses(predicted, truth, valid, picture, picture, losses.PointMapWeights())
    assert {name for name, value in parts.items() if float(value)} == {"mask"}


@pytest.mark.parametrize("field", ["theta", "log_depth", "mask"])
def test_gradients_are_those_of_finite_differences(field: str) -> None:
    predicted, truth, valid = maps(5), maps(6), holes(7)
    picture = torch.zeros(2, 3, *SIZE, dtype=torch.float64)

    def loss(values: torch.Tensor) -> torch.Tensor:
        changed = DecodedMaps(**{**vars(predicted), field: values})
        decoded = picture + changed.log_depth.mean()
        weights = losses.PointMapWeights(alphas=(2, 3))
        return losses.point_map_losses(changed, truth, valid, picture, decoded, weights)[0]

    assert torch.autograd.gradcheck(loss, getattr(predicted, field).clone().requires_grad_(True), eps=1e-7)


def test_edm_loss_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    latent, noise, output = torch.randn(3, 2, 3, 4, 2, 2, generator=generator, dtype=torch.float64)
    levels = losses.draw_noise_levels(torch.tensor([-1.0, 2.0], dtype=torch.float64))
    assert levels.tolist() == pytest.approx([math.exp(0.7 - 1.6), math.exp(0.7 + 3.2)])
    sample = losses.add_noise(latent, noise, levels)
    values = []
    for b in range(2):
        s = float(levels[b])
        c_skip, c_out, c_in = 1 / (s * s + 1), -s / math.sqrt(s * s + 1), 1 / math.sqrt(s * s + 1)
        assert float(sample.timestep[b]) == pytest.approx(math.log(s) / 4)
        for z, n, f, seen in zip(
            latent[b].flatten().tolist(), noise[b].flatten().tolist(), output[b].flatten().tolist(),
            sample.scaled[b].flatten().tolist(), strict=True,
        ):  # fmt: skip
            x = z + s * n
            assert seen == pytest.approx(c_in * x)
            values.append((1 + s * s) / (s * s) * (c_skip * x + c_out * f - z) ** 2)
    # The output goes through float32, as it does when sampling.
    assert float(losses.edm_loss(output, sample, latent)) == pytest.approx(slow_mean(values), rel=1e-5)


def test_edm_loss_is_the_squared_error_of_the_output_and_zero_at_inferences_own_answer() -> None:
    from geo4d.diffusion.karras import v_denoiser

    generator = torch.Generator().manual_seed(1)
    latent, noise, error = torch.randn(3, 3, 2, 4, 2, 2, generator=generator)
    levels = torch.tensor([0.05, 1.0, 30.0])
    sample = losses.add_noise(latent, noise, levels)
    perfect = (latent - sample.noisy * sample.skip[:, None, None, None, None]) / sample.out[
        :, None, None, None, None
    ]
    assert float(losses.edm_loss(perfect, sample, latent)) < 1e-4
    wrong = losses.edm_loss(perfect + error, sample, latent)
    assert float(wrong) == pytest.approx(float(error.square().mean()), rel=1e-3)
    for b, level in enumerate(levels.tolist()):
        seen = []

        def network(scaled, timestep, b=b, seen=seen):
            seen.append((scaled, timestep))
            return perfect[b]

        answer = v_denoiser(network)(sample.noisy[b], level)
        torch.testing.assert_close(answer, latent[b], atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(seen[0][0], sample.scaled[b])
        assert seen[0][1] == pytest.approx(float(sample.timestep[b]), rel=1e-5)


def test_edm_gradient() -> None:
    generator = torch.Generator().manual_seed(2)
    latent, noise, output = torch.randn(3, 2, 1, 2, 2, 2, generator=generator)
    sample = losses.add_noise(latent, noise, torch.tensor([0.5, 3.0]))
    output.requires_grad_(True)
    losses.edm_loss(output, sample, latent).backward()
    for index in ((0, 0, 0, 0, 0), (1, 0, 1, 1, 0)):
        step = torch.zeros_like(output)
        step[index] = 1e-2
        with torch.no_grad():
            up, down = (losses.edm_loss(output + sign * step, sample, latent) for sign in (1, -1))
        assert float(output.grad[index]) == pytest.approx(float((up - down) / 2e-2), rel=2e-2, abs=1e-4)
