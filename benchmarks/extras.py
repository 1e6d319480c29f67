"""What each extra adds to the core: bytes to download (wheels for this machine), and bytes on disk once installed.

    python benchmarks/extras.py

Sizes of wheels come from a lock that uv makes of pyproject.toml, so nothing is downloaded; sizes on disk are those of the
installed packages, with the compiled files that pip makes. A package that is not installed is named; put an environment
that has it on PYTHONPATH.
"""

import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[1]


def wheel_bytes(lock: Mapping[str, Any]) -> dict[str, int]:
    """Package -> bytes of the wheel that this machine would take; of its sdist where there is none.

    A lock may hold several versions, for several Pythons: that which is installed here counts, else the first.
    """
    rank = {tag: place for place, tag in enumerate(sys_tags())}
    sizes: dict[str, int] = {}
    for package in lock["package"]:
        fitting = [(len(rank), package.get("sdist", {}).get("size", 0))]
        for wheel in package.get("wheels", []):
            tags = parse_wheel_filename(wheel["url"].rsplit("/", 1)[-1].replace("%2B", "+"))[3]
            fitting += [(rank[tag], wheel["size"]) for tag in tags if tag in rank]
        if package["name"] not in sizes or is_installed(package["name"], package.get("version")):
            sizes[package["name"]] = min(fitting)[1]
    return sizes


def is_installed(name: str, version: str | None) -> bool:
    """Whether this very version is."""
    try:
        return metadata.version(name).partition("+")[0] == version
    except metadata.PackageNotFoundError:
        return False


def disk_bytes(name: str) -> int:
    """Bytes of the installed files of a package."""
    package = metadata.distribution(name)
    files = (package.locate_file(file) for file in package.files or [])
    return sum(os.path.getsize(str(file)) for file in files if os.path.isfile(str(file)))


def closure(requirements: Iterable[str]) -> tuple[set[str], set[str]]:
    """All packages that some requirements bring, and those of them that are not installed here."""
    waiting = [(Requirement(text), frozenset[str]()) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    missing = set()
    while waiting:
        need, extras = waiting.pop()
        if need.marker is not None and not any(need.marker.evaluate({"extra": e}) for e in extras or {""}):
            continue
        key = str(canonicalize_name(need.name)), frozenset(need.extras)
        if key in seen:
            continue
        seen.add(key)
        try:
            requires = metadata.requires(need.name) or []
        except metadata.PackageNotFoundError:
            missing.add(key[0])
            continue
        waiting += [(Requirement(text), frozenset(need.extras)) for text in requires]
    return {name for name, _ in seen} - missing, missing


def main() -> None:
    """Print a table."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    uv = shutil.which("uv") or str(ROOT / ".venv/bin/uv")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder)
        subprocess.run([uv, "lock", "-q"], cwd=folder, check=True)
        wheels = wheel_bytes(tomllib.loads((Path(folder) / "uv.lock").read_text("utf-8")))
    core, _ = closure(project["dependencies"])
    light = {name for name in core if name != "torch"}
    print(
        f"core: {len(core)} packages, {sum(map(disk_bytes, core)) / 1e6:.0f} MB on disk, of these torch "
        f"{disk_bytes('torch') / 1e6:.0f} MB; download without torch {sum(wheels[n] for n in light) / 1e6:.0f} MB"
    )
    print(
        "\n| extra | packages | download, MB | on disk, MB | not installed here |\n| --- | --- | --- | --- | --- |"
    )
    for extra, requirements in project["optional-dependencies"].items():
        if extra in ("test", "dev"):
            continue
        found, missing = closure(requirements)
        added = found - core
        download = sum(wheels.get(name, 0) for name in added | missing) / 1e6
        on_disk = sum(map(disk_bytes, added)) / 1e6
        print(
            f"| `{extra}` | {len(added | missing)} | {download:.1f} | {on_disk:.1f} | {', '.join(sorted(missing))} |"
        )


if __name__ == "__main__":
    main()
