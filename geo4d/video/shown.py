"""A video as a small piece of a page, for notebooks."""

import html
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from geo4d.errors import InputError
from geo4d.formats.inline import picture_tag, shrunk
from geo4d.formats.ramps import to_uint8

_LONGEST = 160


@runtime_checkable
class _Clip(Protocol):
    times_s: np.ndarray

    @property
    def num_frames(self) -> int: ...

    def __getitem__(self, key: int, /) -> Tensor: ...


def video_html(video: _Clip, frames: Sequence[int] | None = None) -> str:
    """What ``repr`` says, below a few pictures.

    Args:
        frames: which; None takes the first, the middle one and the last. A file is read up to them.
    """
    last = video.num_frames - 1
    tags = []
    words = repr(video)
    for t in sorted({0, last // 2, last}) if frames is None else frames:
        try:
            picture = video[t].numpy()
        except InputError as error:  # it is shown while someone looks around, and must not end that
            words += f"\nframe {t} cannot be read: {error}"
            continue
        tags.append(
            picture_tag(shrunk(to_uint8(picture), _LONGEST), f"frame {t}, {float(video.times_s[t]):.2f} s")
        )
    return f"<div>{' '.join(tags)}</div><pre style='white-space:pre-wrap'>{html.escape(words)}</pre>"
