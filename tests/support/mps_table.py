"""Which operators Apple's GPUs have, by the table of operators that comes with torch (native_functions.yaml)."""

from functools import cache
from pathlib import Path

import torchgen
import yaml

MADE_OF_OTHERS = "made of others"
"""Of an operator without a kernel of its own anywhere: it calls operators that need theirs."""


@cache
def read_table() -> dict[str, set[str]]:
    """Operator, as ``add.Tensor``, -> the backends in its row, and in that of the operator that it hands on to.

    A row without backends is an operator made of others on every device.
    """
    table = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    rows = yaml.load(table.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    backends, hands_on = {}, {}
    for row in rows:
        name = _full(row["func"].partition("(")[0])
        backends[name] = {key.strip() for keys in row.get("dispatch", {}) for key in keys.split(",")}
        if "structured_delegate" in row:
            hands_on[name] = _full(row["structured_delegate"])
        elif not backends[name]:
            backends[name] = {MADE_OF_OTHERS}
    for name, other in hands_on.items():
        backends[name] |= backends[other]
    return backends


def support(operator: str) -> str:
    """``kernel``, ``made of others``, or ``none`` on Apple's GPUs.

    Raises:
        KeyError: torch's table has no such operator.
    """
    found = read_table()[operator]
    if "MPS" in found:
        return "kernel"
    return MADE_OF_OTHERS if any(k == MADE_OF_OTHERS or k.startswith("Composite") for k in found) else "none"


def _full(name: str) -> str:
    return name if "." in name else f"{name}.default"
