"""What a predictor is, and the one dict that names them all.

A predictor is a pure function of (window, seed, evidence): the same call gives the same prediction, whatever was
computed before. Anything that must flow from window to window (latents of an overlap) travels in ``Prediction.carry``;
anything that needs the whole video first travels in the mapping that ``prepare`` returns. So a run can stop after any
window and go on later with bit-identical results.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from geo4d.models.devices import default_device
from geo4d.models.plugins import call_plugin, plugin_loader, plugin_names, require_predictor
from geo4d.types import EvidenceMaps, Prediction, Window


@dataclass(frozen=True)
class PredictorInfo:
    """What a run must know about a predictor before it starts.

    Attributes:
        name: the name in ``PREDICTORS``.
        description: one line for the printed plan.
        licence: of the weights, as shown to the user.
        weights_sha256: hash over the bytes of the loaded weights.
        weights_compared: how many weight files agree with what: ``pinned`` (hashes that come with the package),
            ``recorded`` (when they were pulled or converted), ``unknown`` (there is nothing to compare with).
        window_length: frames per window.
        window_stride: frames between window starts.
        evidence: which evidence ``predict`` wants: ``motion`` (cameras from tracks and plane sweep) or none.
        needs_prepare: True if ``prepare`` must see the whole video before the first window.
        takes_gaps: True if the frames of a window need not be consecutive: dilated, keyframe and loop windows.
        carries: True if a window goes on from the prediction before it: the windows of a shot need their order.
        gives_poses: True if predictions carry enough to place the cameras in one world.
        scale_kind: of the depth that comes out.
        work: of a window, and of a frame's other stages, in units of 1e9 float32 matrix operations; None: not measured.
        windows_at_once: windows that ``predict_batch(windows, seed=...)`` is given together, where nothing is known of
            them but their frames; 1: the predictor has no such function, or it gains nothing here.
        smaller: the option that needs less memory, for the message when memory has run out.
        config: resolved configuration, JSON values.
        remark: what a user should know of these weights before they trust a result; shown with the plan and the verdict.
    """

    name: str
    description: str
    licence: str
    weights_sha256: str
    window_length: int
    window_stride: int
    evidence: Literal["motion"] | None = None
    needs_prepare: bool = False
    takes_gaps: bool = False
    carries: bool = False
    gives_poses: bool = True
    scale_kind: Literal["metric", "scale"] = "scale"
    smaller: str | None = None
    work: tuple[float, float] | None = None
    config: Mapping[str, Any] | None = None
    weights_compared: Mapping[str, int] | None = None
    windows_at_once: int = 1
    remark: str = ""


def remark_on_width(width: int, released: int) -> str:
    """What is to be said of a network that is narrower than the released one, in channels of its first level."""
    if width >= released:
        return ""
    return (
        f"the network has {width} of the {released} channels of the released one: that its windows agree, which the "
        "verdict asks, says little of what so narrow a network knows; compare with truth"
    )


@runtime_checkable
class Predictor(Protocol):
    """Turns windows into predictions."""

    info: PredictorInfo

    def size_for(self, source_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the windows that ``predict`` wants for a video of ``source_size``; maps come back at it.

        Asked once, by the plan of a run: nothing guarantees that the answer for a window's own size is that size.
        """
        ...

    def memory_bytes(self, source_size: tuple[int, int]) -> int:
        """Expected peak memory of ``predict`` above the idle process, for the printed plan."""
        ...

    def prepare(self, windows: Iterable[Window]) -> Mapping[str, Tensor]:
        """A first pass over all frames (disjoint windows), for statistics of the whole video; small tensors."""
        ...

    def predict(
        self,
        window: Window,
        *,
        seed: int,
        evidence: EvidenceMaps | None = None,
        context: Mapping[str, Tensor] | None = None,
        previous: Prediction | None = None,
    ) -> Prediction:
        """Predict one window.

        Args:
            window: frames at the size that ``size_for`` gave for the video.
            seed: with ``window.index`` it determines all noise.
            evidence: about the window's frames, at any size.
            context: what ``prepare`` returned.
            previous: the prediction of the window before, for predictors that carry state.
        Raises:
            ValueError: the network cannot run at the window's size.
        """
        ...


def require_multiple(window: Window, multiple: int) -> tuple[int, int]:
    """The window's (height, width), at which the network runs.

    Raises:
        ValueError: a side is no multiple of ``multiple`` pixels.
    """
    height, width = window.size
    if height % multiple or width % multiple:
        raise ValueError(
            f"expected frames whose sides are multiples of {multiple}, got {width}x{height}; resize them to "
            "predictor.size_for(size of the video)"
        )
    return height, width


PREDICTORS: dict[str, str] = {
    "tiny": "geo4d.models.tiny.pipeline",
    "geo4d": "geo4d.models.geo4d.pipeline",
    "geometrycrafter": "geo4d.models.geometrycrafter.pipeline",
    "geometrycrafter-determ": "geo4d.models.geometrycrafter.pipeline",
    "moge": "geo4d.models.moge.pipeline",
    "moge2": "geo4d.models.moge.metric_pipeline",
}
"""Name -> the module whose ``load(name, **options)`` makes it. The bundled ``tiny`` needs no download."""


HUB_MODULE = "geo4d.models.huggingface.pipeline"
"""Makes the depth networks whose names begin with ``hf:``."""


ON_MPS = frozenset({"tiny", "geo4d"})
"""Models that may run on Apple's GPUs: nothing of them there computes in float64, and torch's table of operators has all
that they use (``tests/models/test_mps.py``). That no such GPU was at hand is said in docs/install.md."""


def choose_device(device: str | None, model: str | None = None) -> str:
    """The torch device to run on: the given one if this machine has it.

    None takes CUDA if there is one, else Apple's GPU (``mps``) for a model of ``ON_MPS``, else the CPU. Others (xpu) are
    taken by name alone: they were never tried.

    Args:
        model: the name in ``PREDICTORS``, or another one of which nothing is known here.
    Raises:
        ValueError: no such device here, or one that the model cannot run on.
    """
    import torch

    have = ["cpu"]
    if torch.cuda.is_available():
        have += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        have.append("mps")
    if torch.xpu.is_available():
        have.append("xpu")
    if device is None:
        return default_device(mps=model in ON_MPS)
    if device not in have:
        hint = ""
        if device.partition(":")[0] in ("cuda", "gpu") and "cuda" not in have:
            missing = (
                "a card or its driver" if torch.version.cuda else "CUDA, as another build of torch has it"
            )
            hint = f" (what is missing is {missing})"
        raise ValueError(
            f"expected a device that torch has on this machine ({', '.join(have)}), got {device!r}; "
            f"see 'geo4d doctor'{hint}"
        )
    if device == "mps" and model in PREDICTORS and model not in ON_MPS:
        raise ValueError(
            f"expected the device cpu for {model}, got mps, which has no float64; {', '.join(sorted(ON_MPS))} run there"
        )
    return device


def load_predictor(
    name: str = "tiny",
    *,
    weights: str | Path | None = None,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    **options: Any,
) -> Predictor:
    """Load a predictor by name.

    Args:
        name: a key of ``PREDICTORS``, or ``hf:`` and a repository of the Hugging Face hub or a folder; or a name that an
            installed package offers (entry points ``geo4d.predictors``), or ``package.module:load``.
        weights: folder or file with the weights; None takes the bundled ones or the local model store
            (see ``geo4d models pull``). Never downloads.
        device: torch device; None picks a CUDA device if there is one, else Apple's GPU for ``ON_MPS``, else the CPU.
        dtype: compute type of the network; None picks by device.
        options: fields of the predictor's own pipeline config, such as ``num_steps``.
    Raises:
        ValueError: unknown name, or a device that this machine does not have.
        PluginError: code of another package cannot be used.
        CheckpointError: weights are missing, foreign or unsafe.
    """
    module = HUB_MODULE if name.startswith("hf:") else PREDICTORS.get(name)
    words = {"weights": weights, "device": device, "dtype": dtype, **options}
    if module is not None:
        if device is not None:
            choose_device(device, name)
        load: Callable[..., Predictor] = import_module(module).load
        return load(name, **words)
    foreign = plugin_loader(name, PREDICTORS)
    if foreign is None:
        names = ", ".join([*PREDICTORS, *plugin_names(PREDICTORS)])
        raise ValueError(
            f"expected one of {names}, hf:NAME_OR_FOLDER or package.module:load as the model, got {name!r}"
        )
    if device is not None:
        choose_device(device, name)
    made = call_plugin(foreign, name, words)
    require_predictor(made, name, Predictor)
    return made  # type: ignore[return-value]
