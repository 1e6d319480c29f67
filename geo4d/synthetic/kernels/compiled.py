"""Functions compiled by numba and cached on disk, renewed when any of their files changes.

numba keeps compiled code as long as the file of the function itself is unchanged; a function that calls one in another
file would go on with the old one. Here the cache goes by the bytes of all files. Strict IEEE arithmetic (no
fast-math): the same scene gives the same bits.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from numba import njit


def compiler_for(files: Iterable[Path]) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that compiles functions of ``files``, which may call each other and read each other's constants."""
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()

    def compiled(function: Callable[..., Any]) -> Any:
        function.__qualname__ = (
            f"{function.__qualname__}_{digest[:16]}"  # numba names its cache files after this
        )
        return njit(cache=True, nogil=True, error_model="numpy")(function)

    return compiled


_FOLDER = Path(__file__).parent
kernel = compiler_for([*sorted(_FOLDER.glob("*.py")), _FOLDER.parent / "shapes.py"])
