"""Reconstruct the 4D geometry of a video: depth, cameras, confidence and what moves, for every frame."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from geo4d.batch.settings import WorkerSettings
from geo4d.config import RunConfig

if TYPE_CHECKING:
    from geo4d.datasets import base
    from geo4d.run.predict import Progress, WindowSource
    from geo4d.run.progress import StageBars
    from geo4d.run.spool import Spool
    from geo4d.types import Reconstruction

EXAMPLES = (
    "geo4d reconstruct clip.mp4 -o out --fov-deg 60",
    "geo4d reconstruct drive.mcap -o out --topic /front/image_raw --trajectory poses.txt",
)


def place_of(text: str) -> Path | str:
    """A path, or an address as it is: a path would lose one of its slashes."""
    from geo4d.formats.objects import is_url

    return text if is_url(text) else Path(text)


PLACE = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="PATH",
    instance_from_str=lambda words: place_of(words[0]),
    is_instance=lambda value: isinstance(value, Path | str),
    str_from_instance=lambda value: [str(value)],
)
"""A path, or an address, on the command line."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What decides the result of one clip: options of every command that reconstructs."""

    model: str = "tiny"
    """Predictor: tiny (bundled), geo4d, geometrycrafter, geometrycrafter-determ, moge, moge2; or hf:OWNER/NAME or
    hf:FOLDER, a depth network of the Hugging Face hub (see 'geo4d models pull'); or the name of an installed plug-in; or
    package.module:load."""
    model_option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=VALUE for the model's own pipeline, such as doubt=false or compile=true; may be given several times."""
    keep_going: bool = False
    """Exit with 0 also when the result is doubtful (values that are not finite, or most frames unreliable)."""
    settings: tyro.conf.OmitArgPrefixes[RunConfig] = field(default_factory=RunConfig)

    def keywords(self) -> dict[str, Any]:
        """The keywords of ``geo4d.run.reconstruct.reconstruct`` that these options are.

        Raises:
            ValueError: a model option is not NAME=VALUE.
        """
        settings = {f.name: getattr(self.settings, f.name) for f in fields(RunConfig)}
        return {"model": self.model, "model_options": parse_options(self.model_option), **settings}


@dataclass(frozen=True)
class ReconstructOptions(RunOptions):
    """Reconstruct the 4D geometry of a video: depth, cameras, confidence and what moves, for every frame.

    docs/reconstruct.md explains every option, what is written, and the exit codes.
    """

    video: Annotated[Path, tyro.conf.Positional]
    """Video file, folder of pictures, data set's folder, ROS bag or MCAP file."""
    output: Annotated[Path | str, PLACE, tyro.conf.arg(aliases=["-o"])]
    """Folder for the result, or an address in an object store: s3://, gs://, az:// (extra remote)."""
    overwrite: bool = False
    """Replace an existing result, or forget an unfinished run."""
    resume: bool = False
    """Go on with an unfinished run; finished windows are not computed again."""
    spool_copy: str | None = None
    """Address in an object store that keeps a copy of finished windows until the result is there; with --resume, another
    machine goes on from it."""
    ground_truth: Path | None = None
    """Folder with ground truth of this video; the result is scored against it."""
    json: Path | None = None
    """File for the scores as JSON; needs --ground-truth."""
    quiet: bool = False
    """Print warnings, errors and scores only."""
    how: tyro.conf.OmitArgPrefixes[WorkerSettings] = field(default_factory=WorkerSettings)


def run(options: ReconstructOptions) -> int:
    """Reconstruct, then say what came out."""
    from geo4d.run.progress import StageBars
    from geo4d.video.outset import outset

    with StageBars(quiet=options.quiet) as bars:
        bars.say(f"reading {outset(options.video)}")  # before torch is loaded, which takes a second or two
        return _run(options, bars)


def _run(options: ReconstructOptions, bars: "StageBars") -> int:
    from geo4d.formats.objects import is_url
    from geo4d.results.verdict import judge_result
    from geo4d.run.plan import RunPlan
    from geo4d.run.reconstruct import reconstruct

    if str(options.output).startswith("memory://"):
        raise ValueError(f"expected a folder or a store that outlives this command, got {options.output}")

    def show(plan: RunPlan) -> None:
        if not options.quiet:
            print("\n".join(plan.lines()), flush=True)

    if options.spool_copy is not None and not is_url(options.spool_copy):
        raise ValueError(
            f"expected an address such as s3://bucket/name for --spool-copy, got {options.spool_copy!r}"
        )
    reference = None
    if options.ground_truth is not None:
        from geo4d.datasets.catalogue import load_ground_truth

        reference = load_ground_truth(options.ground_truth)  # a wrong folder is said before the work
    elif options.json is not None:
        raise ValueError("expected --ground-truth with --json: scores need something to compare with")
    result = reconstruct(
        options.video,
        options.output,
        overwrite=options.overwrite,
        resume=options.resume,
        on_plan=show,
        on_progress=bars,
        predict=window_stage(options),
        spool_copy=options.spool_copy,
        **options.keywords(),
    )
    bars.stop()
    verdict = judge_result(result)
    if not options.quiet:
        height, width = result.size
        seconds = sum(result.diagnostics["seconds"].values())
        poses = "without camera poses (the model gives none)"
        if result.has_poses:
            known = result.reliable is None or bool(result.reliable.any())
            poses = "with camera poses" if known else "without a camera pose that can be trusted"
        print(
            f"wrote {options.output}: {result.num_frames} frames {width}x{height}, {poses}, in {seconds:.1f} s"
        )
        for line in verdict.lines():
            print(line)
        print(f"look at it: geo4d view {options.output}")
    if reference is not None:
        scores = score_result(result, reference)
        print("\n".join(score_lines(scores)))
        if options.json is not None:
            from geo4d.formats.files import new_file

            with new_file(options.json) as temporary:
                temporary.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    verdict.require(keep_going=options.keep_going)
    return 0


def window_stage(options: ReconstructOptions) -> "Callable[[WindowSource, Spool, Progress], None]":
    """What predicts the windows: this process, or the workers that were asked for."""
    if options.how == WorkerSettings():
        from geo4d.run.predict import predict_windows

        return predict_windows
    from geo4d.batch.windows import WindowWorkers

    return WindowWorkers(options.how, **options.keywords())


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE texts as a dict; values are JSON, or else plain text.

    Raises:
        ValueError: no equals sign, or a name twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name or name in options:
            raise ValueError(f"expected --model-option NAME=VALUE with every name once, got {text!r}")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
        except RecursionError as error:
            raise ValueError(f"expected a value of less depth in --model-option {name}") from error
    return options


def score_result(result: "Reconstruction", reference: "base.Sequence") -> dict[str, Any]:
    """Scores against ground truth, depth after one factor per sequence, cameras after a similarity: JSON values."""
    from geo4d.evaluation.protocols import PROTOCOLS
    from geo4d.evaluation.score import score

    row = score(result, reference, PROTOCOLS["median"]).to_json()
    return {"protocol": "median", "sequence": reference.name, "dataset": reference.dataset, **row}


def score_lines(scores: Mapping[str, Any]) -> list[str]:
    """The main scores for people."""

    def text(name: str, unit: str = "") -> str:
        value = scores.get(name)
        return "not determined" if value is None else f"{value:.4f}{unit}"

    lines = [
        f"against {scores['dataset']} {scores['sequence']} (depth scaled by one factor, cameras by a similarity):",
        f"  depth   AbsRel {text('abs_rel')}, delta<1.25 {text('delta_125')}, coverage {text('coverage')}",
        f"  camera  ATE {text('ate')}, RPE {text('rpe_trans')} and {text('rpe_rot_deg', ' degrees')}",
    ]
    lines += [f"  {part}: {why}" for part, why in scores["degenerate"].items()]
    return lines + [f"  note: {warning}" for warning in scores["warnings"]]
