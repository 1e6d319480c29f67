"""``geo4d report``: one HTML page about a reconstruction."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from geo4d.apps.commands.reconstruct import PLACE

EXAMPLES = (
    "geo4d report out",
    "geo4d report out -o page.html --num-frames 12",
)


@dataclass(frozen=True)
class ReportOptions:
    """Write one self-contained HTML page about a reconstruction."""

    result: Annotated[Path | str, PLACE, tyro.conf.Positional]
    """Folder that 'geo4d reconstruct' wrote, or an address in an object store."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """HTML file to write; next to the result if not given, and needed where that is in a store."""
    num_frames: int = 8
    """Frames shown in the strips."""


def run(options: ReportOptions) -> int:
    """Load, write, name the file."""
    if options.output is not None and options.output.suffix.lower() not in (".html", ".htm"):
        raise ValueError(
            f"expected a file ending in .html with -o, got {options.output}; a report is an HTML page"
        )
    from geo4d.formats.objects import is_url

    output = options.output
    if output is None and is_url(str(options.result)):
        raise ValueError(f"expected -o FILE.html with {options.result}: a report is written to this machine")
    if output is None:
        result = Path(options.result).resolve()
        output = result.with_name(result.name + "_report.html")
    import geo4d
    from geo4d.viewer.report import save_report

    print(f"wrote {save_report(geo4d.load(options.result), output, num_frames=options.num_frames)}")
    return 0
