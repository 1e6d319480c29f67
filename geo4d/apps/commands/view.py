"""``geo4d view``: the interactive page of a reconstruction."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from geo4d.apps.commands.reconstruct import PLACE

EXAMPLES = (
    "geo4d view out",
    "geo4d view out --port 9000 --scene 1",
    "geo4d view out --rerun",
)


@dataclass(frozen=True)
class ViewOptions:
    """Look at a reconstruction in the browser."""

    result: Annotated[Path | str, PLACE, tyro.conf.Positional]
    """Folder that 'geo4d reconstruct' wrote, or an address in an object store."""
    host: str = "127.0.0.1"
    """Address to serve on; the default is reachable from this machine only."""
    port: int = 8080
    """Port to serve on."""
    scene: int = 0
    """Scene number, for videos with shot cuts."""
    max_points: int = 60_000
    """Points drawn per frame."""
    origins: tuple[str, ...] = ()
    """Pages of other addresses that may connect, such as https://notebook.example for a proxy; others are refused."""
    rerun: bool = False
    """Open the rerun viewer (extra rerun) in place of the page; of the other options only --scene counts."""


def run(options: ViewOptions) -> int:
    """Serve until interrupted."""
    import geo4d

    if options.rerun:
        from geo4d.viewer.rerun_view import view_in_rerun

        view_in_rerun(geo4d.load(options.result), scene=options.scene)
        return 0
    from geo4d.viewer.viser_view import ViewConfig, view

    config = ViewConfig(
        host=options.host,
        port=options.port,
        scene=options.scene,
        max_points=options.max_points,
        origins=options.origins,
    )
    view(geo4d.load(options.result), config)
    return 0
