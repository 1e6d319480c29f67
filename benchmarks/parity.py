"""Compare this package with recorded outputs of the published networks, case by case.

    python benchmarks/parity.py --reference DIR [--only PREFIX ...] [--json FILE] [--device cuda]

A case is one ``*.npz`` or ``windows*.json`` of the folder. The longest prefix of its name that a family has
registered decides which check runs; every setting is read from the file. Other files are configurations or
key lists. The exit code is non-zero when a case misses a limit, raises, or has no check.

A family registers its checks in a module beside this one that has ``CASES: dict[str, Case]``: ``FAMILIES``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Run as a script from a checkout, the package lies one folder up; the family modules lie beside this file.
HERE = Path(__file__).resolve().parent
sys.path[:0] = [p for p in (str(HERE), str(HERE.parent)) if p not in sys.path]

from geo4d.errors import Geo4DError  # noqa: E402

CASE_ERRORS = (ArithmeticError, LookupError, RuntimeError, ValueError, TypeError, OSError, Geo4DError)
FAMILIES = ("parity_geo4d", "parity_geometrycrafter")
"""Modules beside this file, each with ``CASES``. One that is absent leaves its cases unknown, which fails."""


@dataclass
class Place:
    """Where the checks compute: every case is read onto the device, every network is held there in the type."""

    device: str = "cpu"
    dtype: str = "float32"


PLACE = Place()
"""Of the whole process; ``benchmarks/gpu.py`` and the option ``--device`` change it."""


@dataclass(frozen=True)
class Limit:
    """What a comparison may differ by. None leaves a measure free; a comparison passes when both hold."""

    max_abs: float | None = None
    rel_l2: float | None = None

    def __str__(self) -> str:
        parts = [f"{n} {v:.0e}" for n, v in (("abs", self.max_abs), ("l2", self.rel_l2)) if v is not None]
        return ", ".join(parts) or "none"


LIMITS: dict[str, Limit] = {
    # Geo4D, section 12 of its specification.
    "exact": Limit(max_abs=0.0),
    "module": Limit(max_abs=3e-5, rel_l2=5e-6),
    # Inside the UNet values are larger than at its ends: three times the noise stated for its middle block.
    "intermediate": Limit(max_abs=6e-5, rel_l2=5e-6),
    "schedule": Limit(rel_l2=1e-6),
    "formula": Limit(max_abs=3e-5, rel_l2=5e-6),
    "latent": Limit(rel_l2=1e-5),
    "guided_latent": Limit(rel_l2=5e-5),
    "maps": Limit(rel_l2=3e-5),
    "confidence": Limit(rel_l2=3e-5),
    "pipeline_cameras": Limit(max_abs=1e-3),
    "ray_cameras": Limit(max_abs=1e-5),
    # GeometryCrafter and MoGe, section 13 of their specification.
    "gc_unet": Limit(max_abs=2e-5),
    "gc_latent": Limit(max_abs=2e-5),
    "gc_decoder": Limit(max_abs=1e-4),
    "gc_clip": Limit(max_abs=1e-5),
    "gc_levels": Limit(rel_l2=1e-6),
    "gc_sampled": Limit(max_abs=5e-4),
    "gc_depth_ratio": Limit(max_abs=1e-3),
    "gc_mask_share": Limit(max_abs=1e-3),
    "gc_prior": Limit(max_abs=1e-5),
    "gc_prior_resized": Limit(max_abs=2e-3),
    "moge": Limit(max_abs=1e-4),
    "moge_solved_ratio": Limit(max_abs=3e-3),
    "moge_solved_focal": Limit(max_abs=1e-3),
}
"""Every limit by name. A family adds its own with ``LIMITS.update`` only through this table: edit it here."""


@dataclass(frozen=True)
class Comparison:
    """One quantity of one case against its recorded value."""

    name: str
    max_abs: float
    rel_l2: float
    limit: Limit
    passed: bool


@dataclass(frozen=True)
class Case:
    """``check(file, reference_dir)`` computes the case's quantities and gives one comparison for each."""

    check: Callable[[Path, Path], list[Comparison]]


def compare(name: str, predicted: Any, reference: Any, limit: str | Limit) -> Comparison:
    """Max abs and relative L2 difference of two arrays, judged by a row of ``LIMITS``.

    Non-finite values must sit in the same places with the same value (a recorded NaN is matched by NaN);
    anything else, and a difference of shape, makes both measures infinite. Differences are taken in float64.
    """
    bound = LIMITS[limit] if isinstance(limit, str) else limit
    predicted_array, reference_array = (_host_array(values) for values in (predicted, reference))
    if predicted_array.shape != reference_array.shape:
        return Comparison(
            f"{name} (shape {predicted_array.shape}, recorded {reference_array.shape})",
            np.inf,
            np.inf,
            bound,
            False,
        )
    finite = np.isfinite(reference_array)
    same_gaps = np.array_equal(predicted_array[~finite], reference_array[~finite], equal_nan=True)
    if not same_gaps or not np.isfinite(predicted_array[finite]).all():
        return Comparison(f"{name} (non-finite values differ)", np.inf, np.inf, bound, False)
    difference = predicted_array[finite] - reference_array[finite]
    max_abs = float(np.abs(difference).max(initial=0.0))
    norm = float(np.linalg.norm(reference_array[finite]))
    error = float(np.linalg.norm(difference))
    rel_l2 = error / norm if norm > 0 else (0.0 if error == 0 else np.inf)
    passed = max_abs <= (np.inf if bound.max_abs is None else bound.max_abs)
    passed = passed and rel_l2 <= (np.inf if bound.rel_l2 is None else bound.rel_l2)
    return Comparison(name, max_abs, rel_l2, bound, passed)


def _host_array(values: Any) -> np.ndarray:
    """Float64 values of an array, a tensor on any device or a (nested) list of either."""
    if isinstance(values, list | tuple):
        return np.asarray([_host_array(part) for part in values], np.float64)
    if hasattr(values, "detach"):
        values = values.detach().double().cpu()
    return np.asarray(values, dtype=np.float64)


def rule_tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The made-up weight that both specifications prescribe (their sections 1) for a key of a given shape."""
    x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if len(shape) >= 2:
        return x / np.sqrt(np.float32(np.prod(shape[1:])))
    x = np.float32(0.1) * x
    return x + np.float32(1.0) if len(shape) == 1 and key.endswith("weight") else np.asarray(x)


def load_cases() -> dict[str, Case]:
    """The checks of every family present, by file-name prefix."""
    cases: dict[str, Case] = {}
    for family in FAMILIES:
        if not (HERE / f"{family}.py").exists():
            continue
        registered: dict[str, Case] = importlib.import_module(family).CASES
        clash = cases.keys() & registered.keys()
        if clash:
            raise ValueError(f"prefixes registered twice: {sorted(clash)}")
        cases.update(registered)
    return cases


def find_cases(reference: Path) -> list[Path]:
    """The case files of a folder, in name order."""
    return sorted([*reference.glob("*.npz"), *reference.glob("windows*.json")])


def match_prefix(name: str, cases: dict[str, Case]) -> str | None:
    """The longest registered prefix of a file name, or None."""
    return max((p for p in cases if name.startswith(p)), key=len, default=None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, required=True, help="folder with the recorded cases")
    parser.add_argument("--only", nargs="+", default=None, metavar="PREFIX", help="only files that start so")
    parser.add_argument("--json", type=Path, default=None, help="write every comparison to this file")
    parser.add_argument("--device", default=PLACE.device, help="torch device of networks and cases")
    options = parser.parse_args(arguments)
    PLACE.device = options.device

    files = find_cases(options.reference)
    if options.only:
        files = [f for f in files if f.name.startswith(tuple(options.only))]
    if not files:
        print(f"no cases in {options.reference}", file=sys.stderr)
        return 2
    cases = load_cases()
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for file in files:
        prefix = match_prefix(file.name, cases)
        if prefix is None:
            print(f"\n{file.name}\n  FAIL  no check is registered for this name")
            failed.append(file.name)
            continue
        started = time.process_time()
        try:
            comparisons = cases[prefix].check(file, options.reference)
        except (
            ArithmeticError,
            LookupError,
            RuntimeError,
            ValueError,
            TypeError,
            OSError,
            Geo4DError,
        ) as error:
            print(f"\n{file.name}  [{prefix}]\n  FAIL  {type(error).__name__}: {error}")
            failed.append(file.name)
            continue
        seconds = time.process_time() - started
        print(f"\n{file.name}  [{prefix}]  {seconds:.1f} CPU s")
        for c in comparisons:
            mark = "ok  " if c.passed else "FAIL"
            print(f"  {mark}  {c.name:<44} max abs {c.max_abs:.2e}   rel L2 {c.rel_l2:.2e}   limit {c.limit}")
            rows.append(
                {
                    "file": file.name,
                    "name": c.name,
                    "max_abs": c.max_abs,
                    "rel_l2": c.rel_l2,
                    "limit": str(c.limit),
                    "passed": c.passed,
                }
            )
        if not comparisons:
            print("  FAIL  the check compared nothing")
        if not comparisons or not all(c.passed for c in comparisons):
            failed.append(file.name)
    if options.json is not None:
        options.json.write_text(json.dumps({"comparisons": rows, "failed": failed}, indent=1))
    print(f"\n{len(files) - len(failed)} of {len(files)} cases within limits, {len(rows)} comparisons")
    for name in failed:
        print(f"failed: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    # The family modules import this file as ``parity``; running that copy keeps one set of classes.
    sys.exit(importlib.import_module("parity").main())
