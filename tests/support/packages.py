"""Packages of others, as an installer leaves them."""


def offer(folder, group: str, name: str, value: str, code: str, monkeypatch) -> None:
    """A package on the path with one module and one entry point, as an installer leaves it."""
    info = folder / f"{name}_pack-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}-pack\nVersion: 1.2\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n", encoding="utf-8")
    (folder / f"{name}_pack.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
