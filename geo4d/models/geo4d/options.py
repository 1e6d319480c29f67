"""How windows are sampled and decoded by the Geo4D network."""

from dataclasses import dataclass
from typing import Any, Literal

from geo4d.diffusion.schedules import Spacing
from geo4d.models.deep_cache import require_interval

WINDOW_LENGTH = 16
"""Frames that the released network was trained on; shorter windows are padded."""


@dataclass(frozen=True)
class Geo4DOptions:
    """How windows are sampled and decoded. The defaults are those of the authors' evaluation.

    Attributes:
        num_steps: DDIM steps.
        cache_interval: steps from one full pass of the UNet to the next; in between its deep levels' output is used again
            (``models.deep_cache``). 1: every step in full, as the authors do.
        decoder: of point maps: ``full`` is the codec's own; ``light`` the small one distilled from it, where there is one
            (``geo4d train light-decoder``).
        spacing: which timesteps are visited.
        eta: 0 is deterministic, 1 adds as much noise as ancestral sampling.
        guidance: classifier-free guidance on the text; 1 switches it off and halves the cost.
        image_guidance: guidance on the image tokens, or None (needs per-frame image tokens to have an effect).
        guidance_rescale: in [0, 1], pulls the spread of a guided output back.
        sky_tolerance: how close to the sky value a pixel must come; the authors' demo uses 0.35.
        fps: frames per second told to the network; None takes it from the window (the authors' evaluation always says
            24, their demo what the file says).
        posterior: ``sample`` draws the colour latent as the authors do, ``mean`` takes its mean.
        clean_end: bring the last latent to the scale the codec expects, which the authors' sampler does not.
        window_stride: frames between window starts.
        max_area: largest picture area in pixels; None takes the largest trained one.
        height, width: size of the network's frames, multiples of 64; None: planned from the video's. The authors run any
            16:9 video at 320 x 512.
        encode_chunk, decode_chunk: frames per call of the codec; None decodes one at a time on a CPU, and on an
            accelerator as many as its memory lets (``devices.frames_at_once``).
        offload: keep on the accelerator only the part that is at work.
        compile: compile the UNet's transformers with torch.compile; slow first window, needs a C++ compiler.
    """

    num_steps: int = 5
    cache_interval: int = 1
    decoder: Literal["full", "light"] = "full"
    spacing: Spacing = "uniform_trailing"
    eta: float = 0.0
    guidance: float = 1.0
    image_guidance: float | None = None
    guidance_rescale: float = 0.7
    sky_tolerance: float = 0.1
    fps: float | None = None
    posterior: Literal["sample", "mean"] = "sample"
    clean_end: bool = False
    window_stride: int = 4
    max_area: int | None = None
    height: int | None = None
    width: int | None = None
    encode_chunk: int = 4
    decode_chunk: int | None = None
    offload: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.decoder not in ("full", "light"):
            raise ValueError(f"expected decoder full or light, got {self.decoder!r}")
        require_interval(self.cache_interval)
        if (self.height is None) != (self.width is None):
            raise ValueError("expected height and width together, or neither")
        for name in ("height", "width"):
            side = getattr(self, name)
            if side is not None and (side < 64 or side % 64):
                raise ValueError(f"expected {name} to be a multiple of 64, got {side}")


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "gpu-12gb": {"offload": True, "encode_chunk": 1, "decode_chunk": 1},
    "low-memory": {"offload": True, "encode_chunk": 1, "decode_chunk": 1, "max_area": 98304},
}
"""Named sets of options for ``load(..., preset=...)``."""
