"""Frames -> overlapping windows."""


def published_windows(num_frames: int, length: int = 16, stride: int = 4) -> list[tuple[int, int]]:
    """The window list of Geo4D's released scripts, as [start, end) pairs.

    Windows start every ``stride`` frames and a last one is flush with the end. It is listed a second time
    when the stride already led there (the scripts compute it twice); :func:`plan_windows` removes it.

    Raises:
        ValueError: the clip is shorter than a window, which the scripts do not handle.
    """
    _check(num_frames, length, stride)
    if num_frames < length:
        raise ValueError(
            f"expected at least {length} frames, got {num_frames}; plan_windows pads shorter clips"
        )
    starts = [*range(0, num_frames - length + 1, stride), num_frames - length]
    return [(start, start + length) for start in starts]


def plan_windows(num_frames: int, length: int = 16, stride: int = 4) -> list[tuple[int, int]]:
    """The windows of a clip as [start, end) pairs: every frame covered, each window once, the last flush with
    the end.

    A clip shorter than a window is one short window; a predictor that needs more frames pads it and trims the
    result (:func:`padded_indices`).

    Raises:
        ValueError: no frames, or a length or stride below one, or a stride that would leave frames out.
    """
    _check(num_frames, length, stride)
    if num_frames <= length:
        return [(0, num_frames)]
    return sorted(set(published_windows(num_frames, length, stride)))


def wide_windows(num_frames: int, length: int, step: int) -> list[range]:
    """Windows over every ``step``-th frame, each overlapping the next by half; they tie distant frames together.

    Only whole windows: none in clips shorter than one. Frames at the end that no window reaches are in the plain ones.

    Raises:
        ValueError: a number below one.
    """
    if min(num_frames, length, step) < 1:
        raise ValueError(
            f"expected positive frame count, window length and step, got {num_frames}, {length}, {step}"
        )
    span = (length - 1) * step + 1
    return [range(start, start + span, step) for start in range(0, num_frames - span + 1, span // 2 + 1)]


def padded_indices(num_frames: int, length: int) -> list[int]:
    """Positions that fill a window of ``length`` from ``num_frames`` frames by playing them forth and back.

    The first ``num_frames`` positions are the frames themselves, so a result is trimmed by taking as many.
    Motion
    stays continuous at the turning points: 3 frames into 8 give 0 1 2 1 0 1 2 1.
    """
    if num_frames < 1 or length < num_frames:
        raise ValueError(f"expected 1 <= frames <= window length, got {num_frames} and {length}")
    period = [*range(num_frames), *range(num_frames - 2, 0, -1)]
    return [period[i % len(period)] for i in range(length)]


def _check(num_frames: int, length: int, stride: int) -> None:
    if num_frames < 1 or length < 1 or stride < 1:
        raise ValueError(
            f"expected positive frame count, window length and stride, got {num_frames}, {length}, {stride}"
        )
    if stride > length:
        raise ValueError(f"expected a stride of at most the window length {length}, got {stride}")
