"""Whether a result can be trusted as a whole: one rule, for the command line, the report and Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from geo4d.errors import DoubtfulResult
from geo4d.types import Reconstruction

LEAST_USABLE = 0.5
"""Share of the frames that must be usable. A film that fades in, or one bad stretch, is no failure; a bad half is one."""


@dataclass(frozen=True)
class Verdict:
    """What is to be said about a result.

    Attributes:
        problems: why it is doubtful; empty if it is not.
        remarks: what else a user should know.
    """

    problems: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For people: the verdict, one sentence a line."""
        if not self.problems:
            return ["verdict: usable", *self.remarks]
        return [f"verdict: doubtful: {'; '.join(self.problems)}", *self.remarks]

    def require(self, *, keep_going: bool) -> None:
        """
        Raises:
            DoubtfulResult: there are problems, and ``keep_going`` is not given.
        """
        if self.problems and not keep_going:
            raise DoubtfulResult(
                f"{'; '.join(self.problems)}; the result is written, look at it with 'geo4d report'; "
                "--keep-going accepts it"
            )


def judge_result(result: Reconstruction) -> Verdict:
    """The verdict on a result, from what is stored with it."""
    num_frames = result.num_frames
    reliable = np.ones(num_frames, bool) if result.reliable is None else np.asarray(result.reliable, bool)
    diagnostics = result.diagnostics
    return judge_frames(
        reliable,
        diagnostics.get("not_finite") or {},
        without_picture=diagnostics.get("frames_without_picture") or (),
        motion=diagnostics.get("motion") or (),
        metric=diagnostics.get("metric"),
        relative_windows=(
            len(diagnostics.get("relative_windows") or ()),
            len(diagnostics.get("windows") or ()),
        ),
        model_remark=(result.provenance.get("model") or {}).get("remark") or "",
    )


def judge_frames(
    reliable: Bool[np.ndarray, " T"],
    not_finite: Mapping[Any, Any],
    *,
    without_picture: Sequence[int] = (),
    motion: Sequence[Mapping[str, Any]] = (),
    metric: Mapping[str, Any] | None = None,
    relative_windows: tuple[int, int] = (0, 0),
    model_remark: str = "",
) -> Verdict:
    """The verdict on the frames of a result.

    Args:
        reliable: per frame, whether its geometry and camera can be trusted.
        not_finite: windows whose values were not all finite, as ``diagnostics.json`` lists them.
        without_picture: frames that are black, flat or burnt out.
        motion: what the tracks say about each shot, as ``diagnostics.json`` lists it.
        metric: what the metres come from, where they were measured.
        relative_windows: how many windows have a depth from pictures alone, and how many there are.
        model_remark: what the model says of its weights (``PredictorInfo.remark``).
    """
    num_frames, usable = len(reliable), int(reliable.sum())
    problems, remarks = [], [model_remark] if model_remark else []
    if metric is not None:
        remarks.append(str(metric["statement"]))
    if not_finite:
        names = ", ".join(str(window) for window in list(not_finite)[:8])
        more = ", ..." if len(not_finite) > 8 else ""
        problems.append(
            f"the model gave values that are not finite in {len(not_finite)} windows ({names}{more})"
        )
    if usable < LEAST_USABLE * num_frames:
        problems.append(f"only {usable} of {num_frames} frames are reliable")
    elif usable < num_frames:
        remarks.append(f"{num_frames - usable} of {num_frames} frames are not reliable; see 'geo4d report'")
    if without_picture:
        remarks.append(f"{len(without_picture)} of {num_frames} frames have no usable picture")
    if relative_windows[0]:
        remarks.append(
            f"in {relative_windows[0]} of {relative_windows[1]} windows the camera's motion tells nothing about depth: "
            "there it is the network's own, kept steady over time"
        )
    lost = sum(shot["stop"] - shot["start"] for shot in motion if shot["kind"] == "unknown")
    if lost and num_frames > 1:
        remarks.append(f"no camera explains the motion of {lost} of {num_frames} frames")
    remarks += [
        shot["statement"]
        for shot in motion
        if (shot.get("focal_assumed") or shot.get("zoom")) and shot["kind"] != "unknown"
    ]
    return Verdict(tuple(problems), tuple(remarks))
