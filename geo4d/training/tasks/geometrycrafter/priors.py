"""Per-frame priors of training clips: a stand-in made from the truth, any model frame by frame, and results kept on disk.

A prior is kept as depth and intrinsics of every frame in the pixels of the clip, so it goes through the same crop and
resize as the truth, and from there through the code that conditions the network at inference.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from geo4d.datasets.clips import Clip
from geo4d.datasets.shards import decode_depth, encode_depth
from geo4d.errors import InputError
from geo4d.formats.files import new_file
from geo4d.models.geometrycrafter.prior_maps import fit_frame_intrinsics, usable_points
from geo4d.types import Prior, Window


@dataclass(frozen=True, eq=False)
class FramePrior:
    """What a per-frame model says about a clip.

    Attributes:
        depth: [T, H, W] float32 z-depth in a unit of its own, NaN where it does not believe itself.
        intrinsics: [T, 3, 3] float64 in pixels of ``depth``.
    """

    depth: np.ndarray
    intrinsics: np.ndarray


PriorOfClip = Callable[[Clip], FramePrior]
"""The prior of a clip; the same clip always gets the same."""


@dataclass(frozen=True)
class StandInPrior:
    """Truth with faults like those of a model that sees every frame by itself. A function of (seed, name of the clip).

    Attributes:
        drift: standard deviation of the change from frame to frame of the logarithm of the scale.
        focal: the same for the logarithm of the focal length, of which the clip also starts that far off.
        blur: standard deviation of a Gaussian over the logarithm of the depth, in shares of the longer side.
        noise: standard deviation of smooth noise on the logarithm of the depth, new for every frame.
        cells: of the noise along the longer side.
        seed: of all draws.
    """

    drift: float = 0.03
    focal: float = 0.05
    blur: float = 0.02
    noise: float = 0.1
    cells: int = 6
    seed: int = 0

    @property
    def name(self) -> str:
        """With all settings: what kept priors are known by."""
        return (
            f"stand-in: truth with drift {self.drift}, focal {self.focal}, blur {self.blur}, noise {self.noise} "
            f"on {self.cells} cells, seed {self.seed}"
        )

    def __call__(self, clip: Clip) -> FramePrior:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {clip.name}".encode()))
        depth = torch.from_numpy(clip.depth).float()
        valid = torch.isfinite(depth)
        count, height, width = depth.shape
        longer = max(height, width)
        log_depth = _blurred(torch.where(valid, depth, 1.0).log(), valid, self.blur * longer)
        cells = (max(2, round(self.cells * height / longer)), max(2, round(self.cells * width / longer)))
        coarse = torch.randn(count, 1, *cells, generator=generator)
        smooth = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)[:, 0]
        steps = torch.randn(count, 2, generator=generator)
        scale = (self.drift * steps[:, 0]).cumsum(0)
        focal = (self.focal * steps[:, 1]).cumsum(0) / torch.arange(1, count + 1).sqrt()
        # The mask is blurred, too: edges of the sky move by a pixel or two.
        believed = _blurred(valid.float(), torch.ones_like(valid), self.blur * longer) > 0.5
        found = (log_depth + self.noise * smooth + scale[:, None, None]).exp()
        intrinsics = np.array(clip.intrinsics, np.float64)
        intrinsics[:, :2, :2] *= np.exp(focal.numpy())[:, None, None]
        return FramePrior(torch.where(believed, found, torch.nan).numpy(), intrinsics)


def _blurred(values: Float[Tensor, "T H W"], valid: Tensor, deviation: float) -> Float[Tensor, "T H W"]:
    """Gaussian mean of the valid values around each pixel; the value itself where there is none."""
    reach = max(1, round(2 * deviation))
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-(offsets**2) / (2 * max(deviation, 1e-3) ** 2))
    kernel = kernel / kernel.sum()

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x[:, None], kernel[None, None, None], padding=(0, reach))
        return F.conv2d(x, kernel[None, None, :, None], padding=(reach, 0))[:, 0]

    weight = blur(valid.float())
    mean = blur(torch.where(valid, values, 0.0)) / weight.clamp(min=1e-6)
    return torch.where(weight > 1e-3, mean, values)


@dataclass(frozen=True)
class ModelPrior:
    """Any ``Prior`` (MoGe, the bundled model), asked for one frame at a time.

    Attributes:
        model: the prior.
        weights_sha256: of its weights; part of what kept priors are known by.
    """

    model: Prior
    weights_sha256: str

    @property
    def name(self) -> str:
        """Name and SHA-256 of the model, as the stored priors state them."""
        return f"{self.model.name} {self.weights_sha256}"

    def __call__(self, clip: Clip) -> FramePrior:
        depths, intrinsics = [], []
        height, width = clip.size
        for t in range(clip.num_frames):
            rgb = torch.from_numpy(clip.rgb[t : t + 1]).float() / 255
            window = Window(rgb, torch.tensor([t]), torch.tensor([float(clip.times_s[t])]).double(), t, 1.0)
            maps = self.model(window)
            points, mask, possible = usable_points(maps.points.cpu(), maps.mask.cpu())
            # As at inference, the camera is that of all the prior's points, and the centre is the picture's.
            slopes = points[..., :2] / points[..., 2:]
            tangent = fit_frame_intrinsics(slopes, possible)[0, 2:].double().numpy()
            matrix = np.eye(3)
            matrix[0, 0], matrix[1, 1] = (width - 1) / (2 * tangent[0]), (height - 1) / (2 * tangent[1])
            matrix[0, 2], matrix[1, 2] = width / 2, height / 2
            depths.append(torch.where(mask[0], points[0, ..., 2], torch.nan).numpy())
            intrinsics.append(matrix)
        return FramePrior(np.stack(depths).astype(np.float32), np.stack(intrinsics))


def find_prior(name: str, device: str | None = None) -> ModelPrior:
    """The prior of a command line: ``tiny``, the bundled model frame by frame, or the path of a MoGe checkpoint.

    Raises:
        CheckpointError: no such checkpoint.
    """
    from geo4d.models.base import load_predictor
    from geo4d.models.moge.pipeline import MoGePredictor
    from geo4d.models.per_frame import PerFramePrior

    if name == "tiny":
        bundled = load_predictor("tiny", device=device)
        return ModelPrior(PerFramePrior(bundled), bundled.info.weights_sha256)
    moge = load_predictor("moge", weights=name, device=device)
    assert isinstance(moge, MoGePredictor)
    return ModelPrior(moge.prior, moge.info.weights_sha256)


PRIORS_INDEX = "priors.json"


class StoredPriors:
    """Priors computed once and kept beside the packed clips they belong to.

    Depth is kept with the 16-bit codes of packed clips (relative error about 5e-5), one file per clip.

    Args:
        folder: of the files.
        inner: computes what is not there yet.
        clips: identity of the packed clips (``clips_identity``).
    Raises:
        InputError: the folder holds priors of other clips or of another prior.
    """

    def __init__(self, folder: Path, inner: "StandInPrior | ModelPrior", clips: str) -> None:
        self.folder, self.inner = folder, inner
        stated = {"format": "geo4d-priors", "version": 1, "prior": inner.name, "clips": clips}
        path = folder / PRIORS_INDEX
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{path}: damaged ({error}); delete the folder") from error
            if found != stated:
                raise InputError(
                    f"expected priors of {stated} in {folder}, got those of {found}; use another folder"
                )
        else:
            with new_file(path) as temporary:
                temporary.write_text(json.dumps(stated, indent=1), encoding="utf-8")

    @property
    def name(self) -> str:
        """Name of the prior that the maps came from."""
        return self.inner.name

    def __call__(self, clip: Clip) -> FramePrior:
        name = f"{zlib.crc32(clip.dataset.encode()):08x}-{zlib.crc32(clip.name.encode()):08x}.npz"
        path = self.folder / name
        if not path.is_file():
            found = self.inner(clip)
            codes, near, far = encode_depth(found.depth)
            with new_file(path) as temporary:
                np.savez_compressed(
                    temporary, codes=codes, span=np.array([near, far]), intrinsics=found.intrinsics,
                    clip=np.array(f"{clip.dataset} {clip.name}"),
                )  # fmt: skip
        try:
            with np.load(path) as kept:
                owner = str(kept["clip"])
                codes, span, intrinsics = kept["codes"], kept["span"], kept["intrinsics"]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(f"{path}: damaged ({error}); delete it, and it is made again") from error
        if owner != f"{clip.dataset} {clip.name}" or codes.shape != clip.depth.shape:
            raise InputError(
                f"expected the prior of {clip.dataset} {clip.name} {clip.depth.shape} in {path}, got {owner} "
                f"{codes.shape}; two clips must not share a name: pack them with names of their own"
            )
        return FramePrior(decode_depth(codes, float(span[0]), float(span[1])), intrinsics)
