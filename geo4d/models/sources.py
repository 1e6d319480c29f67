"""Where published weights come from and under which terms: data for ``geo4d models``."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HubRepository:
    """Files that lie on a model hub in the layout in which they are used.

    Attributes:
        repository: ``owner/name``.
        patterns: which files are needed.
        folder: where they go below the model's folder; empty for the folder itself.
    """

    repository: str
    patterns: tuple[str, ...]
    folder: str = ""


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

_MOGE = HubRepository("Ruicheng/moge-vitl", ("model.pt",))

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
            HubRepository(
                "stabilityai/stable-video-diffusion-img2vid-xt",
                (
                    "vae/*fp16*",
                    "vae/config.json",
                    "image_encoder/*fp16*",
                    "image_encoder/config.json",
                    "scheduler/*",
                ),
                "svd",
            ),
            HubRepository(_MOGE.repository, _MOGE.patterns, "moge"),
        ),
    ),
    "moge": Source(
        description="MoGe-1 ViT-L: points and focal length of single pictures",
        licence="MIT",
        download="about 1.3 GB",
        page="Ruicheng/moge-vitl on the Hugging Face hub",
        hub=(_MOGE,),
    ),
}
"""Model -> origin. ``tiny`` comes with the package and is not listed here."""
