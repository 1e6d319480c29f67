"""Windows to one world: the multi-modal alignment (Geo4D, Algorithm 1).

``align`` reads every prediction once and returns cameras and window alignments; ``iter_dense`` makes the dense maps
frame by frame from these; ``fuse`` does both in memory.

Windows that hang together form a scene. Each is solved by ``scene.solve_scene``, and the solutions are merged here.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geo4d.fusion.alignment import MIN_VALID_SAMPLES, AlignConfig, Alignment, CameraEvidence
from geo4d.fusion.all_pixels import ObjectiveValues, evaluate_objective
from geo4d.fusion.pixel_terms import Optics
from geo4d.fusion.register import Registration, disagreeing_windows, register_windows
from geo4d.fusion.samples import Samples, restrict, take_samples
from geo4d.fusion.scene import SceneSolution, solve_scene
from geo4d.fusion.start import Scene
from geo4d.fusion.stitch import stitch
from geo4d.fusion.variables import Variables, scale_world
from geo4d.geometry.cameras import intrinsics_matrix
from geo4d.geometry.poses import rigid, similarity, similarity_parts
from geo4d.optimise.scratch import give_back_memory
from geo4d.optimise.threads import one_thread
from geo4d.types import Prediction

log = logging.getLogger(__name__)


def align(
    predictions: Sequence[Prediction],
    *,
    num_frames: int,
    config: AlignConfig | None = None,
    size: tuple[int, int] | None = None,
    known_intrinsics: Float[Tensor, "T 3 3"] | None = None,
    known_c2w: Float[Tensor, "T 4 4"] | None = None,
    motion: CameraEvidence | None = None,
    device: torch.device | str | None = None,
    scratch: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Alignment:
    """Cameras, focal length and window alignments of a video from the predictions of its windows.

    Every prediction is read once; what stays in memory grows with frames x ``num_samples``.

    Args:
        num_frames: of the processed sequence; frames that no window sees get a camera between their neighbours'.
        size: (height, width) of the maps; None takes that of the first prediction.
        known_intrinsics, known_c2w: held fixed; the world is then that of ``known_c2w``.
        motion: cameras from tracks, used as one more trajectory.
        scratch: folder for work files of long videos; None takes the system's temporary one.
        progress: called with a stage's name and the share done.
    Raises:
        OutputError: there is no room for the work files.
        ValueError: no predictions, maps of several sizes, frames out of range, or mixed kinds of predictions.
    """
    config = config or AlignConfig.corrected()
    if len(predictions) == 0:
        raise ValueError("expected at least one prediction, got none")
    if _is_camera_frame(predictions[0]):
        return stitch(
            predictions,
            num_frames=num_frames,
            config=config,
            size=size,
            known_intrinsics=known_intrinsics,
            known_c2w=known_c2w,
            motion=motion,
            scratch=scratch,
            progress=progress,
        )
    with one_thread():
        samples = take_samples(
            predictions,
            num_frames=num_frames,
            size=size,
            num_samples=config.num_samples,
            weight_limit=config.weight_limit,
            min_disparity=config.min_disparity,
            use_points=config.use_points,
            use_disparity=config.use_disparity,
            use_trajectory=config.use_trajectory,
            mask_sky=config.mask_sky,
            seed=config.seed,
            device=device,
            scratch=scratch,
            progress=progress,
        )
        give_back_memory()  # of the predictions, and of the pieces that the samples were put together from
        return align_samples(
            samples,
            config=config,
            known_intrinsics=known_intrinsics,
            known_c2w=known_c2w,
            motion=motion,
            scratch=scratch,
            report=progress or (lambda stage, share: None),
        )


def _is_camera_frame(prediction: Prediction) -> bool:
    return (
        prediction.point_map is not None
        and prediction.point_frame == "camera"
        and prediction.ray_c2w is None
        and prediction.c2w is None
    )


def align_samples(
    samples: Samples,
    *,
    config: AlignConfig,
    known_intrinsics: Float[Tensor, "T 3 3"] | None,
    known_c2w: Float[Tensor, "T 4 4"] | None,
    motion: CameraEvidence | None,
    scratch: Path | None = None,
    report: Callable[[str, float], None],
) -> Alignment:
    """``align`` after the reading: one solve per group of windows that hang together."""
    if not bool((samples.weight > 0).any()):
        log.warning("no window has a valid point: all frames are marked unreliable, and there is no depth")
    report("registering windows", 0.0)
    registration = register_windows(samples)
    partition = _partition(samples, registration)
    bad = _bad_windows(registration, config) | partition.empty
    solutions = []
    for number in range(partition.num_scenes):
        windows, frames = partition.windows_of(number), partition.frames_of(number)
        alone = partition.num_scenes == 1
        scene = Scene(
            samples=partition.samples if alone else restrict(partition.samples, windows, frames),
            window_numbers=windows,
            world=registration.world[windows],
            agreement=registration.agreement[windows],
            bad=bad[windows],
            empty=partition.empty[windows],
            known_intrinsics=None if known_intrinsics is None else known_intrinsics[frames],
            known_c2w=None if known_c2w is None else known_c2w[frames],
            motion=None if motion is None else motion.at(frames),
            scratch=scratch,
        )
        solutions.append(solve_scene(scene, config, report))
    follows = torch.zeros(samples.num_windows, dtype=torch.bool)
    if motion is not None:
        follows[list(motion.windows)] = (
            True  # tracks know no metres: these windows take whatever scale the others have
        )
    return _merge_scenes(partition, solutions, config, follows)


def _bad_windows(registration: Registration, config: AlignConfig) -> Tensor:
    """Windows, [G], that disagree with those they overlap, or that are given as bad."""
    if config.force_bad_windows is not None:
        bad = torch.zeros(len(registration.component), dtype=torch.bool)
        bad[list(config.force_bad_windows)] = True
        return bad
    return disagreeing_windows(
        registration, ratio=config.max_disagreement, floor=2e-3, ceiling=config.bad_disagreement
    )


# Which windows and frames belong to one scene.


@dataclass(frozen=True)
class _Partition:
    """Scenes of a video.

    Attributes:
        samples: the points of windows that have no place in any scene are off.
        empty: [G] windows without a place: too few valid points, or none shared with the owners of their frames.
        scene_of_window: [G], numbered from 0 by time.
        scene_of_frame: [T].
    """

    samples: Samples
    empty: Tensor
    scene_of_window: Tensor
    scene_of_frame: Tensor

    @property
    def num_scenes(self) -> int:
        return int(self.scene_of_window.max()) + 1

    def windows_of(self, scene: int) -> Tensor:
        return torch.nonzero(self.scene_of_window == scene)[:, 0]

    def frames_of(self, scene: int) -> Tensor:
        return torch.nonzero(self.scene_of_frame == scene)[:, 0]


def _partition(samples: Samples, registration: Registration) -> _Partition:
    """Scenes are the components of the registration; windows that own no frame of theirs join the nearest as empty."""
    valid_points = torch.zeros(samples.num_windows, device=samples.weight.device).index_add_(
        0, samples.window, (samples.weight > 0).sum(1).float()
    )
    middle = torch.tensor([float(frames.double().mean()) for frames in samples.window_frames])
    empty = (valid_points < MIN_VALID_SAMPLES).cpu()
    component = _attach(registration.component, empty, middle)
    # Windows whose every frame belongs to another group share nothing that could place them there: they are no scene.
    samples.touched(len(samples.frame))
    alone = ~torch.isin(component, _scene_of_frames(samples, component, empty))
    while bool(alone.any()):
        empty = empty | alone
        weight = torch.where(alone.to(samples.window.device)[samples.window][:, None], 0.0, samples.weight)
        samples = replace(samples, weight=weight)
        component = _attach(registration.component, empty, middle)
        alone = ~torch.isin(component, _scene_of_frames(samples, component, empty)) & ~empty
    component = _number_by_time(component, middle)
    return _Partition(samples, empty, component, _scene_of_frames(samples, component, empty))


def _attach(component: Tensor, empty: Tensor, middle: Tensor) -> Tensor:
    """Group of each window: that of the registration; one without valid points joins the nearest that has some."""
    if bool(empty.all()):
        return torch.zeros_like(component)
    full = torch.nonzero(~empty)[:, 0]
    nearest = (middle[:, None] - middle[full]).abs().argmin(1)
    return torch.where(empty, component[full[nearest]], component)


def _number_by_time(component: Tensor, middle: Tensor) -> Tensor:
    """Scene numbers in the order of their first window."""
    values = component.unique()
    first = torch.stack([middle[component == value].min() for value in values])
    rank = torch.empty_like(values)
    rank[torch.argsort(first, stable=True)] = torch.arange(len(values))
    return rank[torch.searchsorted(values, component)]


def _scene_of_frames(samples: Samples, component: Tensor, empty: Tensor) -> Tensor:
    """Scene of each frame: that of most of its windows; unseen frames take that of the nearest seen frame.

    Empty windows have a say only where no other window sees the frame.
    """
    frame, window = samples.frame.cpu(), samples.window.cpu()
    votes = torch.zeros(samples.num_frames, int(component.max()) + 1)
    votes.index_put_((frame, component[window]), torch.where(empty[window], 1e-6, 1.0), accumulate=True)
    seen = votes.sum(1) > 0
    scene = votes.argmax(1)
    if not bool(seen.all()):
        where = torch.nonzero(seen)[:, 0]
        nearest = where[(torch.arange(len(seen))[:, None] - where).abs().argmin(1)]
        scene = scene[nearest]
    return scene


# Scenes to one result.


def _merge_scenes(
    partition: _Partition,
    solutions: Sequence[SceneSolution],
    config: AlignConfig,
    follows: Bool[Tensor, " G"],
) -> Alignment:
    """Put the scenes' results in the places of their frames and windows.

    Args:
        follows: windows that say nothing about the scale of the world.
    """
    samples = partition.samples
    num_frames, num_windows = samples.num_frames, samples.num_windows
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(num_frames, 1, 1)
    c2w = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    window_similarity = torch.eye(4, dtype=torch.float64).repeat(num_windows, 1, 1)
    window_weight = torch.ones(num_windows, dtype=torch.float64)
    disparity_scale, disparity_shift, disparity_weight = torch.zeros(3, num_windows, dtype=torch.float64)
    reliable = torch.zeros(num_frames, dtype=torch.bool)
    trajectory_window, trajectory_similarity = [], [torch.zeros(0, 4, 4, dtype=torch.float64)]
    says = ~follows if bool((~follows).any()) else torch.ones_like(follows)
    metric = bool(samples.metric[says].all())
    for scene, solution in enumerate(solutions):
        windows, frames = partition.windows_of(scene), partition.frames_of(scene)
        unit = samples.point_unit[windows]
        if metric:
            solution = _in_metres(solution, unit, says[windows])
        variables = solution.variables
        intrinsics[frames] = _intrinsics(solution)
        c2w[frames] = rigid(variables.rotation, variables.centre).cpu()
        window_similarity[windows] = similarity(
            variables.window_scale.cpu() / unit,
            variables.window_rotation.cpu(),
            variables.window_translation.cpu(),
        )
        window_weight[windows] = solution.window_weight
        disparity_scale[windows] = variables.disparity_scale.cpu()
        disparity_shift[windows] = variables.disparity_shift.cpu()
        disparity_weight[windows] = solution.disparity_weight
        reliable[frames] = solution.reliable
        trajectory_window += [int(windows[t.window]) if t.window >= 0 else -1 for t in solution.trajectories]
        trajectory_similarity.append(
            similarity(
                variables.trajectory_scale, variables.trajectory_rotation, variables.trajectory_translation
            ).cpu()
        )
    return Alignment(
        intrinsics=intrinsics,
        c2w=c2w,
        window_similarity=window_similarity,
        window_weight=window_weight,
        disparity_scale=disparity_scale,
        disparity_shift=disparity_shift,
        disparity_weight=disparity_weight,
        point_unit=samples.point_unit,
        trajectory_window=torch.tensor(trajectory_window, dtype=torch.long),
        trajectory_similarity=torch.cat(trajectory_similarity),
        window_frames=samples.window_frames,
        reliable=reliable,
        scene=partition.scene_of_frame,
        point_frame="window",
        scale_kind="metric" if metric else "scale",
        size=samples.size,
        config=config,
        diagnostics={
            "scenes": [solution.diagnostics for solution in solutions],
            "dropped": [entry for solution in solutions for entry in solution.diagnostics["dropped"]],
            "num_unreliable_frames": int((~reliable).sum()),
        },
    )


def _in_metres(solution: SceneSolution, unit: Tensor, says: Tensor) -> SceneSolution:
    """The scene of metric windows ``says`` (points divided by ``unit``, [G]): it takes their scale on the average."""
    factor = torch.exp(-(solution.variables.window_scale.cpu() / unit).log()[says].median())
    return replace(
        solution,
        variables=scale_world(solution.variables, factor),
        disparity_weight=solution.disparity_weight * float(factor),
    )


def _intrinsics(solution: SceneSolution) -> Tensor:
    focal = solution.variables.log_focal.exp().cpu()
    principal = solution.optics.principal_point
    return intrinsics_matrix(focal, focal * solution.optics.aspect, principal[:, 0], principal[:, 1])


def objective_on_all_pixels(
    alignment: Alignment,
    predictions: Sequence[Prediction],
    depth_of: Callable[[int], Float[Tensor, "H W"]],
) -> ObjectiveValues:
    """Every term of an alignment's objective on all pixels, window by window.

    Args:
        depth_of: frame -> dense depth.
    Raises:
        ValueError: the alignment has no poses.
    """
    if alignment.c2w is None or alignment.point_frame == "camera":
        raise ValueError("expected an alignment with poses of its own, got one without")
    config = alignment.config
    scale, rotation, translation = similarity_parts(alignment.window_similarity)
    track_scale, track_rotation, track_translation = similarity_parts(alignment.trajectory_similarity)
    variables = Variables(
        rotation=alignment.c2w[:, :3, :3],
        centre=alignment.c2w[:, :3, 3],
        log_focal=alignment.intrinsics[:, 0, 0].log(),
        window_scale=scale,
        window_rotation=rotation,
        window_translation=translation,
        disparity_scale=alignment.disparity_scale,
        disparity_shift=alignment.disparity_shift,
        trajectory_scale=track_scale,
        trajectory_rotation=track_rotation,
        trajectory_translation=track_translation,
        log_depth=torch.zeros(alignment.num_frames, 1),
    )
    per_frame = config.per_frame_factor(alignment.num_frames)
    dropped = {d["window"] for d in alignment.diagnostics["dropped"] if d["what"] == "trajectory"}
    kept = [int(w) for w in alignment.trajectory_window if int(w) >= 0 and int(w) not in dropped]
    return evaluate_objective(
        predictions,
        variables,
        depth_of,
        Optics(alignment.intrinsics[:, :2, 2], alignment.intrinsics[:, 1, 1] / alignment.intrinsics[:, 0, 0]),
        disparity_weight=alignment.disparity_weight,
        trajectory_weight=dict.fromkeys(kept, config.trajectory_weight * per_frame),
        smoothness_weight=config.smoothness_weight * per_frame,
        weight_limit=config.weight_limit,
        min_disparity=config.min_disparity,
        window_weight=alignment.window_weight,
        mask_sky=config.mask_sky,
    )
