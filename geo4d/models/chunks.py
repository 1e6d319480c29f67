"""Work in pieces that shrink when memory runs out."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from geo4d.errors import ResourceError, is_out_of_memory

log = logging.getLogger(__name__)


class Chunks:
    """Largest number of items per call of each stage; halved for good when memory runs out."""

    def __init__(self, sizes: dict[str, int], device: torch.device, advice: str) -> None:
        """
        Args:
            sizes: stage -> items per call to begin with.
            device: whose cache is emptied before smaller pieces are tried.
            advice: what the user can do where one item alone does not fit.
        """
        self.sizes, self.device, self.advice = dict(sizes), device, advice

    def run(self, stage: str, work: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
        """``work`` over slices of ``items`` along the first axis, joined; out of memory halves the slices of this stage.

        Raises:
            ResourceError: one item alone does not fit.
        """
        while True:
            size = self.sizes[stage]
            try:
                return torch.cat([work(part) for part in items.split(size)])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if min(size, len(items)) <= 1:
                    raise ResourceError(
                        f"out of memory in the {stage} stage with one item at a time; {self.advice}"
                    ) from error
                self.sizes[stage] = min(size, len(items)) // 2
                log.warning("out of memory: %s stage goes on with chunks of %d", stage, self.sizes[stage])
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
