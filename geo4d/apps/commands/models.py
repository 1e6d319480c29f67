"""``geo4d models``: list, fetch, convert and check weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from geo4d.models.store.folder import ModelFolder
    from geo4d.models.store.sources import HubRepository

EXAMPLES = (
    "geo4d models list",
    "geo4d models pull moge",
)


@dataclass(frozen=True)
class ModelsOptions:
    """Work with weights.

    'list' shows the models, their licences and whether their weights are here. 'pull NAME' brings them into the local
    store: from the model hub where the authors host there, else from files or https addresses that you name with --main
    and --point-vae. 'convert' turns the authors' Geo4D files into a folder of safetensors. 'verify PATH_OR_NAME'
    compares a converted or pulled model with its recorded hashes, or says what a single weight file is.
    """

    action: Annotated[Literal["list", "pull", "convert", "verify"], tyro.conf.Positional]
    """What to do."""
    name: Annotated[str | None, tyro.conf.Positional] = None
    """Model, or hf:OWNER/NAME of a depth network on the Hugging Face hub (pull); or model, folder or file (verify)."""
    main: str | None = None
    """Geo4D: the authors' whole model, a path or an https address."""
    point_vae: str | None = None
    """Geo4D: the authors' fine-tuned point-map codec, a path or an https address."""
    main_sha256: str | None = None
    """Expected hash of --main."""
    point_vae_sha256: str | None = None
    """Expected hash of --point-vae."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder to write (convert); the local store when not given."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the stored weights; the published one when not given."""
    size: Literal["full", "small"] = "full"
    """Size of the network in the files: the released one, or the small one of the tests."""
    keep_towers: bool = False
    """Also store image tower and resampler."""
    revision: str | None = None
    """Commit of the model's first repository on the hub; when not given, the one recorded at the first pull, else the one
    that this version of geo4d names, else the newest, which is then recorded."""
    offline: bool = False
    """Never touch the network."""
    overwrite: bool = False
    """Replace what is there."""


def run(options: ModelsOptions) -> int:
    """List, pull, convert or verify."""
    actions = {"list": _list, "pull": _pull, "convert": _convert, "verify": _verify}
    return actions[options.action](options)


def _list(options: ModelsOptions) -> int:
    from geo4d.models.store.download import model_store
    from geo4d.models.store.sources import SOURCES

    store = model_store()
    print(f"local store: {store}\n")
    print("tiny\n  bundled with the package\n")
    for name, source in SOURCES.items():
        here = (store / name).is_dir()
        print(f"{name}\n  {source.description}\n  licence: {source.licence}\n  download: {source.download}")
        print(f"  from: {source.page}\n  weights: {'here' if here else 'not here'}\n")
    return 0


def _pull(options: ModelsOptions) -> int:
    from geo4d.errors import CheckpointError
    from geo4d.models.store.download import fetch_file, model_store
    from geo4d.models.store.sources import SOURCES

    if options.name is not None and options.name.startswith("hf:"):
        return _pull_depth_network(options, options.name)
    if options.name not in SOURCES:
        raise CheckpointError(
            f"expected a model to pull ({', '.join(SOURCES)}, or hf:OWNER/NAME), got {options.name!r}"
        )
    source = SOURCES[options.name]
    print(f"licence of these weights: {source.licence}")
    if source.hub:
        return _pull_from_hub(options, model_store() / options.name, source.hub)
    if options.main is None or options.point_vae is None:
        needed = ", ".join(f"--{role} ({what})" for role, what in source.files.items())
        raise CheckpointError(
            f"the authors of {options.name} do not host on a model hub: download the files yourself from {source.page}, "
            f"then name them (paths or https addresses): {needed}"
        )
    downloads = model_store() / "downloads"
    main = fetch_file(
        options.main, downloads / "geo4d-main.ckpt", sha256=options.main_sha256, offline=options.offline
    )
    point_vae = fetch_file(
        options.point_vae,
        downloads / "geo4d-point-vae.ckpt",
        sha256=options.point_vae_sha256,
        offline=options.offline,
    )
    return _convert_files(options, main, point_vae)


def _pull_depth_network(options: ModelsOptions, name: str) -> int:
    """Fetch one repository of the hub for ``--model hf:...``; its licence is shown before and after."""
    from geo4d.models.huggingface.weights import licence_of, repository_of, store_folder, weight_files
    from geo4d.models.store.hub import stated_licence

    repository, folder = repository_of(name), store_folder(name)
    if not options.offline:
        print(f"licence of these weights: {stated_licence(repository, options.revision)}")
    code = _pull_from_hub(options, folder, (repository,))
    weight_files(folder)
    print(f"licence of these weights: {licence_of(folder, name)}")
    print(f"use it with: --model {name}")
    return code


def _pull_from_hub(options: ModelsOptions, folder: Path, hub: "tuple[HubRepository, ...]") -> int:
    """Fetch every repository of a model at one commit each, and record commits and hashes."""
    from geo4d.formats.files import write_json
    from geo4d.models.store.hub import PULLED, fetch_repository, read_pulled

    pulled = read_pulled(folder)
    for repository in hub:
        recorded = pulled.get(repository.repository, {})
        first = repository is hub[0]
        revision = (options.revision if first else None) or recorded.get("revision")
        pulled[repository.repository] = fetch_repository(
            repository, folder, revision, recorded.get("sha256", {}), offline=options.offline
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PULLED, pulled)
        commit = pulled[repository.repository]["revision"]
        known = "hashes as published" if commit == repository.revision else "hashes recorded, none published"
        print(f"{repository.repository} at {commit}: {known}")
    print(f"weights are in {folder}")
    return 0


def _convert(options: ModelsOptions) -> int:
    from geo4d.errors import CheckpointError
    from geo4d.models.store.download import fetch_file

    if options.main is None or options.point_vae is None:
        raise CheckpointError("expected --main FILE and --point-vae FILE: the two files of the authors")
    main = fetch_file(options.main, Path(options.main), sha256=options.main_sha256, offline=True)
    point_vae = fetch_file(
        options.point_vae, Path(options.point_vae), sha256=options.point_vae_sha256, offline=True
    )
    return _convert_files(options, main, point_vae)


def _convert_files(options: ModelsOptions, main: Path, point_vae: Path) -> int:
    from geo4d.models.devices import DTYPES
    from geo4d.models.geo4d.config import PRESETS
    from geo4d.models.geo4d.convert import convert
    from geo4d.models.store.download import model_store

    folder = convert(
        main,
        point_vae,
        options.output or model_store() / "geo4d",
        config=PRESETS[options.size](),
        dtype=None if options.dtype is None else DTYPES[options.dtype],
        keep_towers=options.keep_towers,
        overwrite=options.overwrite,
    )
    print(f"{folder.path}: {len(folder.weight_map)} tensors in {len(folder.shard_sha256)} files")
    print(f"identity of the weights (SHA-256): {folder.sha256}")
    print(f"licence note: {folder.path / 'NOTICE.md'}")
    return 0


def _modalities(folder: "ModelFolder") -> str:
    """What the network of a Geo4D folder predicts.

    Raises:
        CheckpointError: its config contradicts itself.
    """
    from geo4d.models.geo4d.weights import load_config
    from geo4d.models.geo4d.widths import modalities_of, trained_modalities

    config = load_config(folder)
    present, trained = modalities_of(config, str(folder.path)), trained_modalities(folder, config)
    if trained == present:
        return f"predicts {', '.join(present)}"
    return (
        f"a start for training alone: it has channels of {', '.join(present)}, and was trained up to "
        f"{', '.join(trained) or 'none of them'}"
    )


def _verify(options: ModelsOptions) -> int:
    from geo4d.errors import CheckpointError
    from geo4d.models.store.download import model_store
    from geo4d.models.store.folder import CONFIG, INDEX, ModelFolder
    from geo4d.models.store.hub import PULLED, verify_pulled
    from geo4d.models.store.identity import check_trained
    from geo4d.models.store.looks import describe_keys
    from geo4d.models.store.reading import read_state
    from geo4d.models.store.sources import SOURCES
    from geo4d.models.trained import TRAINED, read_trained

    if options.name is None:
        raise CheckpointError("expected a model, a folder or a weight file to verify")
    # A model's name wins over a file or folder of that name in the current folder.
    path = model_store() / options.name if options.name in SOURCES else Path(options.name)
    if options.name.startswith("hf:"):
        from geo4d.models.huggingface.weights import find_folder

        path = find_folder(options.name)
    if path.is_file():
        state = read_state(path)
        print(f"{path}: {len(state)} tensors, readable and safe; it looks like {describe_keys(state)}")
        return 0
    if (path / PULLED).is_file():
        found = verify_pulled(path)
        parts = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
        print(f"{path}: {sum(found.values())} files have their right hashes ({parts})")
        return 0
    if (path / TRAINED).is_file():
        record, count = read_trained(path), len(check_trained(path).sha256)
        assert record is not None
        extra = (
            " and a light decoder"
            if any(name.startswith("light_decoder/") for name in record["sha256"])
            else ""
        )
        steps = record.get("options", {}).get("num_steps")
        extra += "" if steps is None else f", sampled in {steps} step{'s' * (steps != 1)}"
        print(
            f"{path}: {record['family']}, trained up to stage '{record['stage']}'{extra}; {count} files, all hashes right"
        )
        return 0
    if not (path / INDEX).is_file():
        raise CheckpointError(
            f"expected a model, a folder or a weight file, found nothing to verify at {path}"
        )
    try:
        family = json.loads((path / CONFIG).read_text(encoding="utf-8")).get("family", "")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path / CONFIG}: damaged ({error}); convert or pull the model again"
        ) from error
    folder = ModelFolder.open(path, family)
    folder.verify()
    extra = " with a light decoder" if "light_decoder" in folder.config else ""
    if family == "geo4d":
        extra += f", {_modalities(folder)}"
    print(
        f"{path}: {family}{extra}, {len(folder.weight_map)} tensors, all hashes right; identity {folder.sha256}"
    )
    return 0
