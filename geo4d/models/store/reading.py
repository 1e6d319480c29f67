"""Named tensors of a weight file of either kind, whatever wraps them."""

from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from geo4d.errors import CheckpointError
from geo4d.models.store.looks import describe_head
from geo4d.models.store.pickles import read_torch_file


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, memory mapped.

    Raises:
        CheckpointError: damaged or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def read_state(
    path: str | Path, containers: Iterable[str] = ("state_dict", "module", "model")
) -> dict[str, Tensor]:
    """The named tensors of a weight file, whatever wraps them.

    Args:
        path: safetensors, or a PyTorch zip file.
        containers: names under which training programs put the state; the first one present is taken, else the tree
            itself.
    Raises:
        CheckpointError: missing, damaged, unsafe, or without tensors; it says what the file looks like.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"expected a weight file, {path} is {'a folder' if path.is_dir() else 'not there'}"
        )
    with path.open("rb") as file:
        head = file.read(512)
    if head[:4] == b"PK\x03\x04":
        tree = read_torch_file(path)
    elif len(head) > 9 and head[8:9] == b"{":
        return read_safetensors(path)
    else:
        raise CheckpointError(f"{path}: not a weight file: {describe_head(head)}")
    for name in containers:
        if isinstance(tree, dict) and isinstance(tree.get(name), dict):
            tree = tree[name]
            break
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path}: expected tensors by name, got {type(tree).__name__}")
    state = {
        name: value for name, value in tree.items() if isinstance(value, Tensor) and isinstance(name, str)
    }
    if not state:
        raise CheckpointError(f"{path}: no tensors by name inside; top level: {[str(k) for k in tree][:8]}")
    return state
