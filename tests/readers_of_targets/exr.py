"""How Blender and Nuke name the channels of an OpenEXR file.

Blender 4.5: imbuf/intern/openexr/openexr_api.cpp, ``imb_exr_split_channel_name``. Nuke 16.0: NDK example
ExrChannelNameToNuke.cpp and its built-in channels (``Z`` without a layer is ``depth.Z``, other channels without a layer
go to ``other``).
"""

from pathlib import Path

import numpy as np
import OpenEXR


def load(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Channels and header by OpenEXR's own reader."""
    file = OpenEXR.File(str(path), separate_channels=True)
    assert len(file.parts) == 1
    return {name: np.asarray(channel.pixels) for name, channel in file.channels().items()}, file.header()


def blender_passes(names: list[str]) -> dict[str, str]:
    """Pass -> letters of its channels, in the unnamed layer. A file with any layered name is read as multilayer."""
    assert any("." in name for name in names)
    has_xyz = {"X", "Y", "Z"} <= set(names)
    passes: dict[str, str] = {}
    for name in names:
        *layers, channel = name.split(".")
        assert len(layers) <= 1, "a second dot would make a render layer"
        letter = channel.upper() if len(channel) == 1 else "X"
        if layers:
            key = layers[0]
        elif len(channel) > 1:
            key = channel
        elif letter == "Z" and not has_xyz:
            key = "Depth"
        elif letter == "Y" and not has_xyz:
            key = channel
        elif letter in "RGBAVXYZ":
            key = "Combined"
        else:
            key = channel
        passes[key] = "".join(sorted(passes.get(key, "") + letter))
    return passes


def nuke_channels(names: list[str]) -> dict[str, str]:
    """Name in Nuke -> name in the file."""
    words = {"R": "red", "G": "green", "B": "blue", "A": "alpha"}
    found = {}
    for name in names:
        *layers, channel = [part.lstrip("0123456789") for part in name.split(".")]
        channel = words.get(channel, channel)
        if not layers:
            layers = ["rgba" if channel in words.values() else "depth" if channel == "Z" else "other"]
        found["_".join(layers) + "." + channel] = name
    assert len(found) == len(names)
    return found
