"""Scale and shift of every frame's disparity, solved over a window against evidence from motion.

A network that sees one picture at a time answers with a scale and a shift that drift. They are solved from residuals that
are logarithms, and so without a unit: log(s_t D + b_t) - log(disparity of the sweep), where the sweep is sure and nothing
moves. The residuals count by their own spread (median), with Cauchy's weights, and by the share of the frame that they
cover: errors of neighbouring pixels are alike, so a fully covered frame counts as ``INDEPENDENT`` measurements, however
many pixels it has. Weak terms (the ordinary drift from frame to frame, the ordinary size of a shift, what the window
before found) decide where evidence does not.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SAMPLES = 2500
"""Pixels of a frame that the solve looks at, on a grid."""
INDEPENDENT = 20.0
"""Independent measurements that a fully covered frame is worth: errors reach over about a quarter of the picture."""
LEAST_PIXELS = 40
"""Sampled pixels with evidence in a window, fewer of which determine nothing."""
DRIFT = 0.05
"""Change of scale and shift from one frame to the next that is ordinary in any case, as a share."""
WIDER = 2.0
"""The ordinary change in units of the median change that frames with evidence show, each by itself."""
CARRIED = 0.03
"""How exactly the values that the window before found are taken over, as a share."""
SHIFT = 1.0
"""Ordinary size of the shift, in units of the median disparity; holds it where all of a window is at one depth."""
NUM_STEPS = 8
LEAST_SPREAD = 0.01
LEAST_VALUE = 0.02
"""Smallest disparity whose logarithm is taken, in units of the median."""
LEAST_SCALE = 0.05
"""Smallest scale of a frame, as a share of the window's."""


@dataclass(frozen=True)
class Curve:
    """Disparity of each frame as scale * D + shift of the network's D.

    Attributes:
        scale, shift: of every frame.
        error: relative spread of the evidence about the result: robust standard deviation of the log ratio.
    """

    scale: Float[Tensor, " V"]
    shift: Float[Tensor, " V"]
    error: float

    def __call__(self, disparity: Float[Tensor, "V H W"]) -> Float[Tensor, "V H W"]:
        """The disparity; may be negative where the network says "far"."""
        return self.scale[:, None, None] * disparity + self.shift[:, None, None]


@dataclass(frozen=True)
class Known:
    """Scale and shift of frames that the window before solved; NaN for the others."""

    scale: Float[Tensor, " V"]
    shift: Float[Tensor, " V"]


def grid_step(size: tuple[int, int]) -> int:
    """Pixels between samples in maps of a size."""
    return max(1, round(math.sqrt(size[0] * size[1] / SAMPLES)))


def enough_evidence(weight: Float[Tensor, "V H W"]) -> bool:
    """Whether a window's evidence determines a scale."""
    step = grid_step((weight.shape[1], weight.shape[2]))
    return int((weight[:, step // 2 :: step, step // 2 :: step] > 0).sum()) >= LEAST_PIXELS


def solve_over_time(
    disparity: Float[Tensor, "V H W"],
    evidence: Float[Tensor, "V H W"],
    weight: Float[Tensor, "V H W"],
    *,
    affine: bool,
    steady: bool = True,
    known: Known | None = None,
) -> Curve:
    """Scale and shift of every frame.

    Args:
        disparity: the network's, any unit.
        evidence: disparity from motion, one unit for all frames; positive.
        weight: >= 0; 0 where there is no evidence, and on what moves.
        affine: the network's disparity has a shift; else the shift stays 0.
        steady: use the weak terms; False fits every frame that has evidence by itself.
        known: what the window before found.
    Raises:
        ValueError: too little evidence (see ``enough_evidence``).
    """
    num_frames, size = len(disparity), (disparity.shape[1], disparity.shape[2])
    step = grid_step(size)
    part = (slice(None), slice(step // 2, None, step), slice(step // 2, None, step))
    d, q, w = (maps[part].flatten(1).double() for maps in (disparity, evidence, weight))
    used = w > 0
    if int(used.sum()) < LEAST_PIXELS:
        raise ValueError(
            f"expected at least {LEAST_PIXELS} sampled pixels with evidence, got {int(used.sum())}"
        )
    unit = d[used].abs().quantile(0.98).clamp(min=1e-12) if used.sum() < 2**24 else d.abs().max()
    middle = q[used].median()
    d, q = d / unit, q / middle
    state = _first_state(d, q, w, affine)
    drift = _ordinary_drift(state, w)
    carried = None
    if steady and known is not None:
        carried = torch.stack([known.scale.double() * unit / middle, known.shift.double() / middle], 1)
    error = 0.0
    for _ in range(NUM_STEPS):
        system = _System(num_frames)
        error = _add_evidence(system, state, d, q, w)
        _add_ordinary(system, state, affine, drift, carried, 1.0 if steady else 1e-6)
        state = system.step(state)
        floor = LEAST_SCALE * state[:, 0].median().abs().clamp(min=1e-9)
        state[:, 0] = state[:, 0].clamp(min=float(floor))
    return Curve((state[:, 0] * middle / unit).float(), (state[:, 1] * middle).float(), error)


def _first_state(d: Tensor, q: Tensor, w: Tensor, affine: bool) -> Float[Tensor, "V 2"]:
    """Scale and shift of every frame by itself, where it has evidence; else those of all frames together."""
    used = w > 0
    together = torch.stack(_first_fit(d[used], q[used], w[used], affine))
    return torch.stack(
        [
            torch.stack(_first_fit(d[t][one], q[t][one], w[t][one], affine))
            if int(one.sum()) >= LEAST_PIXELS
            else together
            for t, one in enumerate(used)
        ]
    )


def _ordinary_drift(state: Float[Tensor, "V 2"], w: Tensor) -> Float[Tensor, " 2"]:
    """Ordinary change of scale and shift from one frame to the next: what frames that know show, at least ``DRIFT``."""
    least = torch.tensor(
        [DRIFT * float(state[:, 0].median().abs().clamp(min=1e-6)), DRIFT], dtype=state.dtype
    )
    knows = (w > 0).sum(1) >= LEAST_PIXELS
    steps = state.diff(dim=0)[knows[1:] & knows[:-1]].abs()
    return torch.maximum(least, WIDER * steps.median(0).values) if len(steps) else least


def _first_fit(d: Tensor, q: Tensor, w: Tensor, affine: bool) -> tuple[Tensor, Tensor]:
    """One scale and shift for the window: relative least squares, reweighted; a plain ratio where that turns it over."""
    ratio = (q.median() / d.median().clamp(min=1e-6)).clamp(min=1e-6)
    scale, shift = ratio, torch.zeros_like(ratio)
    if not affine:
        return scale, shift
    rows = torch.stack([d / q, 1 / q], 1)
    robust = torch.ones_like(q)
    for _ in range(NUM_STEPS):
        weighted = rows * (w * robust)[:, None]
        normal = weighted.mT @ rows + 1e-6 * torch.eye(2, dtype=q.dtype) * (w.sum() + 1)
        scale, shift = torch.linalg.solve(normal, weighted.sum(0))
        residual = scale * rows[:, 0] + shift * rows[:, 1] - 1
        robust = _robust(residual, residual.abs().median() * 1.4826, 0.02)
    least = LEAST_SCALE * ratio
    return (scale, shift) if bool(scale > least) else (ratio, torch.zeros_like(ratio))


def _robust(residual: Tensor, spread: Tensor | float, least: float) -> Tensor:
    """Cauchy's weights for a spread, which is at least ``least``."""
    width = 2 * max(float(spread), least)
    return 1 / (1 + (residual / width).square())


class _System:
    """Normal equations of all frames' scales and shifts."""

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames
        self.matrix = torch.zeros(2 * num_frames, 2 * num_frames, dtype=torch.float64)
        self.right = torch.zeros(2 * num_frames, dtype=torch.float64)

    def add(
        self, columns: Int[Tensor, "n k"], rows: Float[Tensor, "n k"], residual: Tensor, weight: Tensor
    ) -> None:
        """Residuals with their derivatives by some unknowns."""
        size = 2 * self.num_frames
        weighted = rows * weight[:, None]
        flat = (columns[:, :, None] * size + columns[:, None, :]).flatten()
        self.matrix.view(-1).index_add_(0, flat, (weighted[:, :, None] * rows[:, None, :]).flatten())
        self.right.index_add_(0, columns.flatten(), -(weighted * residual[:, None]).flatten())

    def step(self, state: Float[Tensor, "V 2"]) -> Float[Tensor, "V 2"]:
        """The state after one Gauss-Newton step."""
        damping = 1e-9 * self.matrix.diagonal().clamp(min=1e-9)
        change = torch.linalg.solve(self.matrix + torch.diag(damping), self.right)
        return state + change.reshape(-1, 2)


def _add_evidence(system: _System, state: Tensor, d: Tensor, q: Tensor, w: Tensor) -> float:
    """Residuals to the evidence; their spread."""
    used = w > 0
    frame = torch.arange(len(d))[:, None].expand_as(d)[used]
    value = (state[frame, 0] * d[used] + state[frame, 1]).clamp(min=LEAST_VALUE)
    residual = (value / q[used]).log()
    spread = max(float(residual.abs().median()) * 1.4826, LEAST_SPREAD)
    weight = w[used] * _robust(residual, spread, LEAST_SPREAD) * (INDEPENDENT / d.shape[1] / spread**2)
    columns = torch.stack([2 * frame, 2 * frame + 1], 1)
    system.add(columns, torch.stack([d[used] / value, 1 / value], 1), residual, weight)
    return spread


def _add_ordinary(
    system: _System, state: Tensor, affine: bool, drift: Tensor, carried: Tensor | None, strength: float
) -> None:
    """Ordinary sizes of shift and drift, and what the window before found: one measurement each, times ``strength``."""
    everyone = torch.arange(len(state))
    unit = torch.stack([state[:, 0].median().abs().clamp(min=1e-6), state.new_tensor(1.0)])

    def add(columns: Tensor, rows: Tensor, residual: Tensor, weight: float) -> None:
        system.add(columns, rows, residual, torch.full_like(residual, weight))

    one = torch.ones(len(state), 1, dtype=state.dtype)
    add(2 * everyone[:, None] + 1, one, state[:, 1], strength / SHIFT**2 if affine else 1e12)
    for part in (0, 1):
        share = 1 / drift[part]
        first = 2 * everyone[:-1] + part
        rows = share * torch.tensor([[-1.0, 1.0]], dtype=state.dtype).expand(len(state) - 1, 2)
        add(torch.stack([first, first + 2], 1), rows, share * state[:, part].diff(), strength)
        if carried is not None:
            frames = torch.isfinite(carried[:, part]).nonzero()[:, 0]
            share = 1 / (CARRIED * unit[part])
            gap = share * (state[frames, part] - carried[frames, part])
            add(2 * frames[:, None] + part, share * one[frames], gap, strength)
