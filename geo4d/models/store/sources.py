"""Where published weights come from and under which terms: data for ``geo4d models``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class PinnedFile:
    """Size in bytes and hex SHA-256 of a published file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class HubRepository:
    """Files that lie on a model hub in the layout in which they are used.

    Attributes:
        repository: ``owner/name``.
        patterns: which files are needed.
        folder: where they go below the model's folder; empty for the folder itself.
        revision: commit that is fetched; None: no commit is known for sure, the newest one is taken and recorded.
        pinned: file -> size and hash at ``revision``.
    """

    repository: str
    patterns: tuple[str, ...]
    folder: str = ""
    revision: str | None = None
    pinned: Mapping[str, PinnedFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Origin of one model's weights.

    Attributes:
        description: one line.
        licence: of the weights, shown before anything is fetched.
        download: size of what is fetched, in words.
        hub: repositories, where the authors host there.
        files: role -> what the user must bring (path or address), where they host elsewhere; these are converted.
        page: where the authors offer the files.
    """

    description: str
    licence: str
    download: str
    page: str
    hub: tuple[HubRepository, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


GEO4D_LICENCE = (
    "no licence is stated by the authors for the Geo4D weights; they build on Stable Diffusion (CreativeML OpenRAIL-M), "
    "DynamiCrafter (Apache-2.0) and OpenCLIP (MIT)"
)

_MOGE = HubRepository(
    "Ruicheng/moge-vitl",
    ("model.pt",),
    revision="979e84da9415762c30e6c0cf8dc0962896c793df",
    pinned={
        "model.pt": PinnedFile(
            1_256_823_446, "da96b09a0485a3c45a5aa455e67743c8b4efc4dd8437c1f2aa93c2b4303d957f"
        )
    },
)

_SVD = HubRepository(
    "stabilityai/stable-video-diffusion-img2vid-xt",
    (
        "vae/*fp16*",
        "vae/config.json",
        "image_encoder/*fp16*",
        "image_encoder/config.json",
        "scheduler/*",
    ),
    "svd",
    revision="9e43909513c6714f1bc78bcb44d96e733cd242aa",
    pinned={
        "image_encoder/config.json": PinnedFile(
            685, "65da4496f116d2b297fe864e0f31242fbc57e26a5d95b93310f2034e1e90d0ec"
        ),
        "image_encoder/model.fp16.safetensors": PinnedFile(
            1_264_217_240, "ae616c24393dd1854372b0639e5541666f7521cbe219669255e865cb7f89466a"
        ),
        "scheduler/scheduler_config.json": PinnedFile(
            533, "59aa43afc33395efd40fe94c7369c0477b81698f4b65b63e3ae06f26269876d5"
        ),
        "vae/config.json": PinnedFile(
            607, "8f34272db69f7e2c615da6142ca3f9fdcd7b682bcfd903ceb15035fea79a8303"
        ),
        "vae/diffusion_pytorch_model.fp16.safetensors": PinnedFile(
            195_531_910, "af602cd0eb4ad6086ec94fbf1438dfb1be5ec9ac03fd0215640854e90d6463a3"
        ),
    },
)
"""Commit and hashes as the hub states them for the released files; several projects pin the same ones."""

SOURCES: dict[str, Source] = {
    "geo4d": Source(
        description="Geo4D: the authors' video diffusion network (2.6 G parameters as published)",
        licence=GEO4D_LICENCE,
        download="about 10.8 GB in two files",
        page="the README of the repository jzr99/Geo4D, which links two Google Drive files",
        files={
            "main": "the whole model",
            "point-vae": "the fine-tuned point-map codec",
        },
    ),
    "geometrycrafter": Source(
        description="GeometryCrafter, generative and deterministic, with its image codec, frame encoder and prior",
        licence="GeometryCrafter: academic use only (Tencent); Stable Video Diffusion: Stability AI community licence; "
        "MoGe: MIT",
        download="about 10 GB",
        page="TencentARC/GeometryCrafter on the Hugging Face hub",
        hub=(
            HubRepository(
                "TencentARC/GeometryCrafter",
                ("unet_diff/*", "unet_determ/*", "point_map_vae/*", "*.md", "LICENSE*"),
            ),
            _SVD,
            replace(_MOGE, folder="moge"),
        ),
    ),
    "moge": Source(
        description="MoGe-1 ViT-L: points and focal length of single pictures",
        licence="MIT",
        download="about 1.3 GB",
        page="Ruicheng/moge-vitl on the Hugging Face hub",
        hub=(_MOGE,),
    ),
    "moge2": Source(
        description="MoGe-2 ViT-L: points in metres and focal length of single pictures",
        licence="MIT",
        download="about 1.3 GB",
        page="Ruicheng/moge-2-vitl on the Hugging Face hub",
        hub=(HubRepository("Ruicheng/moge-2-vitl", ("model.pt",)),),
    ),
}
"""Model -> origin. ``tiny`` comes with the package and is not listed here."""
