"""``geo4d data check|pack``: look at data sets, and pack them or generated clips for training."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from geo4d.errors import InputError

if TYPE_CHECKING:
    from geo4d.datasets.base import Reader
    from geo4d.datasets.clips import Clip

EXAMPLES = (
    "geo4d data check data/tum data/sintel",
    "geo4d data pack -o shards --from data/tum --frames 100",
)


@dataclass(frozen=True)
class DataOptions:
    """Work with training data.

    'check ROOT...' reads a few frames of every sequence of a data set, or of your own folder, and says what is missing,
    what is in a wrong unit, and whether depth and poses agree. 'pack --from ROOT... -o SHARDS' writes them as webdataset
    shards. 'pack --stage STAGE -o SHARDS' writes clips of the generator in the same format, with the evidence that
    training shows the network. docs/own_data.md has the format.
    """

    action: Annotated[Literal["check", "pack"], tyro.conf.Positional]
    """What to do."""
    roots: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders to check."""
    output: Annotated[str | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder of the shards, or a URL of an object store (s3://..., by fsspec)."""
    from_: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")] = ()
    """Folders to pack, one source each: data sets, or sequences of your own."""
    reader: tuple[str, ...] = ()
    """Readers of the folders, one for all or one each; without it the layout is recognised."""
    ratio: tuple[float, ...] = ()
    """How often each source is drawn in training, in the order of --from; without it by its frames."""
    size: tuple[int, int] | None = None
    """Height and width of the packed clips: resized until covered, then the middle; without it the maps' own."""
    frames: int = 150
    """Frames of a clip at most."""
    limit: int | None = None
    """Only the first so many sequences of each folder."""
    skip_bad: bool = False
    """Leave out sequences that cannot be read or that 'check' calls an error; without it they end the packing."""
    stage: str = "pairs"
    """Generated clips: the stage they are for; sets size, frames and frame rates."""
    preset: str = "full"
    """Generated clips: its preset, smallest, reduced or full."""
    family: Literal["geo4d", "tiny", "geometrycrafter"] | None = None
    """Generated clips: whose stage it is, where several families have one of that name."""
    clips: int = 1024
    """Generated clips: how many."""
    per_shard: int = 64
    """Clips per file; every worker of every process needs a file of its own."""
    workers: int = 1
    """Generated clips: processes that make them."""


def run(options: DataOptions) -> int:
    """Check or pack."""
    if options.action == "check":
        if not options.roots:
            raise ValueError("expected folders: geo4d data check ROOT...")
        return _check(options)
    if options.output is None:
        raise ValueError("expected -o SHARDS to pack to")
    if options.roots:
        raise ValueError(f"expected folders to pack after --from, got {options.roots[0]} by itself")
    if options.from_:
        return _pack(options)
    return _generate(options, options.output)


def _readers(options: DataOptions, roots: tuple[Path, ...]) -> "list[tuple[Path, Reader, dict[str, Path]]]":
    """Folder, its reader, and its sequences.

    Raises:
        InputError: no reader fits; ValueError: another number of readers than folders.
    """
    from geo4d.datasets.catalogue import recognise

    names = options.reader
    if len(names) not in (0, 1, len(roots)):
        raise ValueError(f"expected one --reader, or one for each of {len(roots)} folders, got {len(names)}")
    result = []
    for number, root in enumerate(roots):
        name = names[number if len(names) > 1 else 0] if names else None
        reader, sequences = recognise(root, name)
        result.append((root, reader, dict(list(sequences.items())[: options.limit])))
    return result


def _check(options: DataOptions) -> int:
    from geo4d.datasets.check import check_sequence

    bad = count = 0
    for root, reader, sequences in _readers(options, options.roots):
        print(f"{root}: {reader.title}, {len(sequences)} sequences{', no video' if reader.still else ''}")
        for name, path in sequences.items():
            count += 1
            try:
                sequence = reader.load(path, name)
                findings = check_sequence(sequence)
            except InputError as error:
                bad += 1
                print(f"  {name}: ERROR {error}")
                continue
            wrong = [finding.text for finding in findings if finding.level == "error"]
            bad += bool(wrong)
            height, width = sequence.size
            state = "ERROR" if wrong else "ok"
            print(f"  {name}: {state}, {sequence.num_frames} frames {width}x{height}, {sequence.scale_kind}")
            for finding in findings:
                print(f"    {finding.level}: {finding.text}")
    print(f"{count - bad} of {count} sequences can be packed")
    if bad:
        raise InputError(
            f"{bad} of {count} sequences have errors, see above; docs/own_data.md says what to do"
        )
    return 0


def _pack(options: DataOptions) -> int:
    from geo4d.datasets.shards import ShardWriter

    if options.ratio and len(options.ratio) != len(options.from_):
        raise ValueError(
            f"expected {len(options.from_)} ratios, one for each folder, got {len(options.ratio)}"
        )
    if options.ratio and (min(options.ratio) < 0 or sum(options.ratio) <= 0):
        raise ValueError(f"expected ratios >= 0 with a positive sum, got {options.ratio}")
    assert options.output is not None
    writer = ShardWriter(options.output, per_shard=options.per_shard)
    for number, (_, reader, sequences) in enumerate(_readers(options, options.from_)):
        ratio = options.ratio[number] if options.ratio else None
        clips = _clips(reader, sequences, options)
        source = writer.write_source(reader.name, clips, still=reader.still, ratio=ratio)
        print(
            f"{reader.title}: {source.num_clips} clips, {source.frames} frames, {len(source.shards)} files",
            flush=True,
        )
    writer.close()
    print(f"wrote {options.output}")
    return 0


def _clips(reader: "Reader", sequences: dict[str, Path], options: DataOptions) -> "Iterator[Clip]":
    from geo4d.datasets.check import check_sequence
    from geo4d.datasets.clips import cut_clips

    for name, path in sequences.items():
        try:
            sequence = reader.load(path, name)
            wrong = [finding.text for finding in check_sequence(sequence) if finding.level == "error"]
            if wrong:
                raise InputError(f"{reader.title} sequence {name}: {'; '.join(wrong)}")
        except InputError as error:
            if not options.skip_bad:
                raise
            print(f"left out: {error}", flush=True)
            continue
        yield from cut_clips(sequence, length=options.frames, size=options.size, still=reader.still)


def _generate(options: DataOptions, output: str) -> int:
    from geo4d.training.recipes import find_family, find_stage
    from geo4d.training.shards import pack_clips

    if options.family == "geometrycrafter":
        from geo4d.training.tasks.geometrycrafter import presets
        from geo4d.training.tasks.geometrycrafter.stages import generated_source

        made, one = presets.find_stage(options.preset, options.stage)
        source, first = generated_source(made, one), one.first_clip
    else:
        family = options.family or find_family(options.stage, options.preset)
        preset, stage = find_stage(family, options.preset, options.stage)
        source, first = stage.streams[0].source(preset.seed), stage.first_clip
    pack_clips(
        source,
        output,
        options.clips,
        per_shard=options.per_shard,
        first=first,
        num_workers=options.workers,
    )
    return 0
