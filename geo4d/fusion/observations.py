"""Sampled maps of the observations while windows are read: kept in pieces, then put in the order of frames and windows.

In long videos they are many: they go to disk then, and a few pages of them are in memory at a time.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from geo4d.optimise.scratch import Scratch

HELD_BYTES = 8 * 2**20
"""So much is held in memory, all maps together; more goes to disk."""

_ROWS_AT_ONCE = 256


class Observations:
    """Rows of maps that come window by window.

    Args:
        scratch: folder for what is too large to be held in memory; None takes the system's temporary one.
        device: where the sorted maps are wanted; those of an accelerator stay there.
    """

    def __init__(self, scratch: Path | None, device: torch.device | str | None) -> None:
        self._scratch, self._device = scratch, device
        self._on_disk = device is None or torch.device(device).type == "cpu"
        self._waiting: list[Mapping[str, Tensor]] = []
        self._waiting_bytes = 0
        self._pieces: list[dict[str, Scratch]] = []

    def add(self, maps: Mapping[str, Tensor]) -> None:
        """The maps of a window by name, its frames first."""
        here = {name: values.to(self._device) if self._device else values for name, values in maps.items()}
        self._waiting.append(here)
        self._waiting_bytes += sum(values.numel() * values.element_size() for values in here.values())
        if self._on_disk and self._waiting_bytes > HELD_BYTES:
            self._put_down()

    def ordered(self, order: Int[Tensor, " O"]) -> tuple[dict[str, Tensor], tuple[Scratch, ...]]:
        """Row ``order[k]`` of everything that was added as row k, and the files that the maps lie in, if any.

        Nothing is left here afterwards.
        """
        if not self._pieces:
            parts = [dict(part) for part in self._waiting]
            self._waiting = []
            return {name: torch.cat([part.pop(name) for part in parts])[order] for name in list(parts[0])}, ()
        self._put_down()
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        positions = place.cpu().numpy()
        stores = {
            name: Scratch(
                (len(order), *store.array.shape[1:]), store.array.dtype, self._scratch, held_bytes=0
            )
            for name, store in self._pieces[0].items()
        }
        done = 0
        while self._pieces:
            piece = self._pieces.pop(0)
            count = len(next(iter(piece.values())).array)
            for name, store in piece.items():
                for first in range(0, count, _ROWS_AT_ONCE):
                    rows = store.array[first : first + _ROWS_AT_ONCE]
                    stores[name].array[positions[done + first : done + first + len(rows)]] = rows
                    store.touched(rows.nbytes)
                    stores[name].touched(rows.nbytes)
            done += count
        return {name: torch.from_numpy(store.array) for name, store in stores.items()}, tuple(stores.values())

    def _put_down(self) -> None:
        """Move what waits in memory to disk."""
        if not self._waiting:
            return
        piece: dict[str, Scratch] = {}
        for name, first in self._waiting[0].items():
            count = sum(len(part[name]) for part in self._waiting)
            values = first.numpy()
            store = Scratch((count, *values.shape[1:]), values.dtype, self._scratch, held_bytes=0)
            done = 0
            for part in self._waiting:
                rows: np.ndarray = part[name].numpy()
                store.array[done : done + len(rows)] = rows
                store.touched(rows.nbytes)
                done += len(rows)
            piece[name] = store
        self._pieces.append(piece)
        self._waiting, self._waiting_bytes = [], 0
