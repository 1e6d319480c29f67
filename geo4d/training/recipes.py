"""The recipes by name: which stages a model is trained through, in which order, and with which settings.

``geo4d train STAGE --family FAMILY --preset PRESET`` runs one stage; the next one starts from its weights; ``all`` runs
the stages of ``Preset.chain`` one after the other. The numbers are in ``tasks/FAMILY/presets.py``.
"""

from collections.abc import Callable, Mapping

from geo4d.training.plans import Preset, Stage
from geo4d.training.tasks.geo4d import presets as geo4d
from geo4d.training.tasks.tiny import presets as tiny

PRESETS: Mapping[str, Mapping[str, Callable[[], Preset]]] = {"geo4d": geo4d.PRESETS, "tiny": tiny.PRESETS}
"""Family -> preset -> what makes it; GeometryCrafter's are in ``tasks.geometrycrafter.presets``."""


def find_preset(family: str, preset_name: str) -> Preset:
    """Look both names up.

    Raises:
        ValueError: unknown name; the message lists the known ones, and says what became of an old one.
    """
    if family not in PRESETS:
        raise ValueError(f"expected a family out of {', '.join(PRESETS)}, got {family!r}")
    if preset_name == "tiny":
        raise ValueError(
            "expected --preset smallest or full; what was --preset tiny is now --family tiny --preset full"
        )
    if preset_name not in PRESETS[family]:
        raise ValueError(
            f"expected a preset of {family} out of {', '.join(PRESETS[family])}, got {preset_name!r}"
        )
    return PRESETS[family][preset_name]()


def find_family(stage_name: str, preset_name: str) -> str:
    """The one family that has a stage of this name.

    Raises:
        ValueError: several have, or none.
    """
    sized = [name for name in PRESETS if preset_name in PRESETS[name]] or list(PRESETS)
    stages = {name: find_preset(name, preset_name).stages for name in sized}
    found = [name for name in sized if stage_name in stages[name]]
    if len(found) != 1:
        known = "; ".join(f"{name}: {', '.join(stages[name])}" for name in sized)
        raise ValueError(
            f"expected --family for '{stage_name}', which {' and '.join(found) or 'none of the families'} "
            f"{'have' if found else 'has'}; {known}"
        )
    return found[0]


def find_stage(family: str, preset_name: str, stage_name: str) -> tuple[Preset, Stage]:
    """Look all three names up.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    preset = find_preset(family, preset_name)
    if stage_name not in preset.stages:
        raise ValueError(
            f"expected a stage of {family}'s '{preset_name}' out of {', '.join(preset.stages)}, got {stage_name!r}"
        )
    return preset, preset.stages[stage_name]
