"""Key tables against the recorded key lists; no weights involved."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from geo4d.errors import CheckpointError
from geo4d.models.geo4d.config import Geo4DConfig, full, small
from geo4d.models.geo4d.weights import (
    DEEPSPEED_PREFIX,
    PublishedKey,
    check_coverage,
    from_published,
    main_table,
    make_parts,
    normalise_main,
    normalise_point_vae,
    point_vae_table,
    to_published,
)

GOLDEN = Path(__file__).parent / "golden"


def key_list(name: str) -> dict[str, tuple[int, ...]]:
    with gzip.open(GOLDEN / f"{name}.json.gz", "rt") as file:
        return {key: tuple(shape) for key, shape in json.load(file).items()}


def random_state(table: dict[str, PublishedKey]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(key.shape, generator=generator) for name, key in table.items()}


@pytest.mark.parametrize(
    ("table", "recorded", "count"),
    [(main_table, "checkpoint_keys_full", 2554), (point_vae_table, "vae_checkpoint_keys_full", 282)],
)
def test_every_published_key_is_accounted_for(table, recorded: str, count: int) -> None:
    ours = {name: key.shape for name, key in table(full()).items()}
    assert ours == key_list(recorded)
    assert len(ours) == count


def test_every_tensor_of_ours_is_filled_once() -> None:
    table = main_table(full()) | point_vae_table(full())
    held = [(key.part, key.ours) for key in table.values() if key.part is not None]
    assert len(held) == len(set(held))
    for part, module in make_parts(
        full(), ["unet", "vae", "point_vae", "text", "image", "resampler"]
    ).items():
        assert {ours for p, ours in held if p == part} == set(module.state_dict())
    assert all(key.why_not for key in table.values() if key.part is None)


def test_parameter_counts_of_the_released_network() -> None:
    counts = {
        part: sum(p.numel() for p in module.parameters()) for part, module in make_parts(full()).items()
    }
    assert counts["unet"] == 1_438_924_112
    assert counts["vae"] == 84_549_611
    assert counts["resampler"] == 48_787_456


def test_round_trip_is_exact(tiny_config: Geo4DConfig) -> None:
    for table in (main_table(tiny_config), point_vae_table(tiny_config)):
        state = random_state(table)
        parts, rest = from_published(state, table)
        back = to_published(parts, rest, table)
        assert list(back) == list(table)
        assert all(torch.equal(back[name], state[name]) for name in state)
        again, rest_again = from_published(back, table)
        assert rest_again.keys() == rest.keys()
        assert all(torch.equal(again[p][n], parts[p][n]) for p in parts for n in parts[p])


def test_modules_load_what_the_table_gives(tiny_config: Geo4DConfig) -> None:
    parts, _ = from_published(random_state(main_table(tiny_config)), main_table(tiny_config))
    modules = make_parts(tiny_config)
    for part, module in modules.items():
        module.load_state_dict(parts[part], assign=True, strict=True)


def test_deepspeed_and_older_names(tiny_config: Geo4DConfig) -> None:
    table = main_table(tiny_config)
    assert len(DEEPSPEED_PREFIX) == 16
    state = {
        DEEPSPEED_PREFIX + name.replace("fps_embedding", "framestride_embed"): torch.zeros(key.shape)
        for name, key in table.items()
    }
    assert normalise_main(state).keys() == table.keys()


def test_point_vae_ignores_losses(tiny_config: Geo4DConfig) -> None:
    state = random_state(point_vae_table(tiny_config)) | {"loss.discriminator.weight": torch.zeros(3)}
    parts, _ = from_published(normalise_point_vae(state), point_vae_table(tiny_config))
    assert set(parts) == {"point_vae"}


def test_foreign_checkpoint_says_what_it_is(tiny_config: Geo4DConfig) -> None:
    table = main_table(tiny_config)
    with pytest.raises(CheckpointError, match=r"0 are present.*it looks like a Geo4D point-map codec"):
        from_published(random_state(point_vae_table(tiny_config)), table, "file")
    shapes = {name: key.shape for name, key in table.items()}
    first = next(iter(shapes))
    with pytest.raises(CheckpointError, match=rf"1 missing: {first}"):
        check_coverage({n: s for n, s in shapes.items() if n != first}, table, "file")
    with pytest.raises(CheckpointError, match="1 surplus: extra"):
        check_coverage(shapes | {"extra": (1,)}, table, "file")
    with pytest.raises(CheckpointError, match=r"1 other shape: .*expected .*got \[7\]"):
        check_coverage(shapes | {first: (7,)}, table, "file")


def test_small_preset_has_the_same_structure() -> None:
    def pattern(config: Geo4DConfig) -> set[str]:
        return {name for name in main_table(config) if "resblocks" not in name and "image_proj" not in name}

    assert pattern(small()) == pattern(full())
