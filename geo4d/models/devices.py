"""Where networks compute, and in which type."""

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class OnDevice:
    """Moves a module to the device for the time of a ``with`` block when offloading is on."""

    def __init__(self, module: torch.nn.Module, device: torch.device, offload: bool) -> None:
        self.module, self.device, self.offload = module, device, offload

    def __enter__(self) -> None:
        if self.offload:
            self.module.to(self.device)

    def __exit__(self, *exception: object) -> None:
        if self.offload:
            self.module.to("cpu")


def default_device(*, mps: bool = False) -> str:
    """``cuda`` where there is one, else ``mps`` where there is one and the network may run there, else ``cpu``."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if mps and torch.backends.mps.is_available() else "cpu"


def has_float64(device: torch.device) -> bool:
    """Whether the device computes in float64; Apple's GPUs do not."""
    return device.type != "mps"


def default_dtype(device: str) -> torch.dtype:
    """bfloat16 where the device computes in it, float16 on older GPUs, float32 on other CPUs."""
    if device.startswith("cuda"):
        return torch.bfloat16 if cuda_computes_bfloat16() else torch.float16
    return torch.bfloat16 if device == "cpu" and cpu_computes_bfloat16() else torch.float32


FRAMES_AT_ONCE = ((40, 8), (20, 4))
"""GiB of an accelerator's memory, and the frames of 320x512 that a full-size decoder may then treat together."""

WINDOWS_AT_ONCE = ((40, 4), (20, 2))
"""The same for windows of sixteen such frames in the diffusion network."""


def frames_at_once(device: torch.device) -> int:
    """Frames for one call of a decoder: 1 on a CPU, where more gain nothing; the same in every run on a machine."""
    return _by_memory(device, FRAMES_AT_ONCE)


def windows_at_once(device: torch.device) -> int:
    """Windows that share the calls of a diffusion network: 1 on a CPU; the same in every run on a machine."""
    return _by_memory(device, WINDOWS_AT_ONCE)


def _by_memory(device: torch.device, steps: tuple[tuple[int, int], ...]) -> int:
    if device.type != "cuda":
        return 1
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    return next((count for least, count in steps if total >= least), 1)


def cuda_computes_bfloat16() -> bool:
    """Whether the GPU has instructions for bfloat16; older ones emulate it at a fraction of the speed."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def cpu_computes_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16; without them it is slower than float32."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
