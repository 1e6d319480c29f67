"""One self-contained HTML page about a reconstruction: the verdict first, pictures and plots, raw numbers folded away."""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geo4d.export import conventions
from geo4d.formats.files import new_file
from geo4d.results.verdict import judge_result
from geo4d.types import Reconstruction
from geo4d.viewer.plots import focal_length, trajectories
from geo4d.viewer.strips import strips
from geo4d.viewer.summary import source_name
from geo4d.viewer.tables import PER_WINDOW, WINDOW_WORDS, table, value_html, window_rows
from geo4d.viewer.words import describe

_STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 1rem;
  color: #1d1d1f; background: #fff }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; margin: 0.5rem 0 }
h2 { font-size: 1.1rem; margin: 2rem 0 0.6rem; border-bottom: 1px solid #ddd }
.verdict { border-left: 6px solid #2e7d4f; background: #f1f7f3; padding: 0.7rem 1rem; margin: 1rem 0; font-size: 1.05rem }
.verdict.doubtful { border-color: #b00020; background: #fdf1f2 }
.facts { color: #555; margin: 0 }
dl.words { display: grid; grid-template-columns: max-content 1fr; gap: 0.4rem 1.2rem; margin: 0 }
dl.words dt { font-weight: 600; color: #444 }
dl.words dd { margin: 0 }
dl.words p { margin: 0 0 0.3rem }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.2rem 1.6rem; padding: 0; margin: 0 0 0.6rem;
  font-size: 0.85rem }
.legend li { max-width: 100% }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; border: 1px solid #999 }
.ends { color: #555 }
.whole { white-space: nowrap }
.strip { display: flex; overflow-x: auto; border: 1px solid #ddd; background: #fafafa; padding-bottom: 4px }
.strip figure { flex: none; margin: 0 4px 0 0 }
.strip img { display: block; margin-bottom: 3px }
.names { position: sticky; left: 0; flex: none; display: flex; flex-direction: column;
  background: #fafafa; padding: 0 2px }
.names .row { writing-mode: vertical-rl; transform: rotate(180deg); text-align: center; font-size: 0.75rem; color: #444;
  height: var(--row); margin-bottom: 3px }
figcaption { font-size: 0.78rem; color: #555 }
.bad { color: #b00020; font-weight: 600 }
svg { background: #fafafa; border: 1px solid #ddd; max-width: 100%; height: auto; margin: 0 0.6rem 0.4rem 0 }
.note { color: #555; font-size: 0.85rem; margin: 0.3rem 0 }
details { margin: 0.5rem 0; border: 1px solid #ddd; border-radius: 4px; padding: 0.3rem 0.8rem }
summary { cursor: pointer; font-weight: 600 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.85rem }
td, th { padding: 0.2rem 0.7rem; text-align: left; border-bottom: 1px solid #eee; vertical-align: top }
th { color: #555; font-weight: 600 }
@media (max-width: 600px) {
  dl.words { grid-template-columns: 1fr; gap: 0.1rem }
  dl.words dd { margin-bottom: 0.6rem }
}
"""


def save_report(reconstruction: Reconstruction, path: str | Path, *, num_frames: int = 8) -> Path:
    """Write the page.

    Args:
        num_frames: columns of the strips, evenly spread over the video.
    Raises:
        OutputError: ``path`` cannot be written.
    """
    with new_file(path) as temporary:
        temporary.write_text(report_html(reconstruction, num_frames=num_frames), encoding="utf-8")
    return Path(path)


def readable(text: str) -> str:
    """Text that can be written in UTF-8: bytes of file names that are no UTF-8 become replacement characters."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def report_html(reconstruction: Reconstruction, *, num_frames: int = 8) -> str:
    """The page as text; every word of the input is escaped."""
    title = f"geo4d report: {source_name(reconstruction)}"
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        _verdict(reconstruction),
        "<h2>Frames</h2>",
        strips(reconstruction, num_frames),
    ]
    if reconstruction.has_poses:
        sections += ["<h2>Camera path</h2>", trajectories(reconstruction)]
    sections += ["<h2>Focal length</h2>", focal_length(reconstruction)]
    sections += ["<h2>Numbers</h2>", *_numbers(reconstruction)]
    body = "\n".join(sections)
    return readable(
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def _verdict(reconstruction: Reconstruction) -> str:
    """What a reader must know before the pictures."""
    words = describe(reconstruction)
    height, width = reconstruction.size
    times = np.asarray(reconstruction.times_s, np.float64)
    facts = [
        f"{reconstruction.num_frames} frames",
        f"{times[-1] - times[0]:.2f} s",
        f"maps {width} x {height}",
    ]
    scenes = 1 if reconstruction.scene is None else len(set(np.asarray(reconstruction.scene).tolist()))
    if scenes > 1:
        facts.append(f"{scenes} scenes, each in a world of its own")
    rows = {
        "Camera": words.camera,
        "Measured": words.measured,
        "Assumed": words.assumed,
        "Leave out": words.unusable,
        "The source": _source_notes(reconstruction),
    }
    listed = "".join(
        f"<dt{_mark(name)}>{name}</dt><dd>{''.join(f'<p>{html.escape(line)}</p>' for line in lines)}</dd>"
        for name, lines in rows.items()
        if lines
    )
    doubtful = " doubtful" if words.doubtful else ""
    return (
        f"<p class='facts'>{html.escape(', '.join(facts))}</p>"
        f"<p class='verdict{doubtful}'><b>{html.escape(words.verdict)}</b></p><dl class='words'>{listed}</dl>"
    )


def _mark(name: str) -> str:
    return " class='bad'" if name == "Leave out" else ""


def _source_notes(reconstruction: Reconstruction) -> tuple[str, ...]:
    source = reconstruction.provenance.get("source")
    notes = source.get("notes") if isinstance(source, Mapping) else None
    return tuple(map(str, notes)) if isinstance(notes, list) else ()


def _numbers(reconstruction: Reconstruction) -> list[str]:
    """Everything that is stored about the run, folded away."""
    diagnostics = dict(reconstruction.diagnostics)
    windows = window_rows(diagnostics)
    folded: list[tuple[str, str]] = []
    if windows:
        used = {column for row in windows for column in row}
        words = "".join(
            f"<li><b>{html.escape(name)}</b>: {html.escape(meaning)}</li>"
            for name, meaning in WINDOW_WORDS.items()
            if name in used
        )
        folded.append(("Windows", f"{table(windows)}<ul class='note'>{words}</ul>"))
    for key, heading in (
        ("motion", "Motion seen by tracks"),
        ("terms", "Terms"),
        ("seconds", "Seconds per stage"),
    ):
        if diagnostics.get(key):
            folded.append((heading, value_html(diagnostics.pop(key))))
    rest: dict[str, Any] = {
        key: value
        for key, value in diagnostics.items()
        if key not in ("windows", "evidence_windows", "scenes")
    }
    for number, scene in enumerate(diagnostics.get("scenes") or []):
        rest[f"scene {number}"] = {k: v for k, v in scene.items() if k not in PER_WINDOW}
    if rest:
        folded.append(("Diagnostics", value_html(rest)))
    folded += [
        ("Verdict of the command", value_html(judge_result(reconstruction).lines())),
        ("How it was made", value_html(dict(reconstruction.provenance))),
        ("Conventions", value_html(conventions(reconstruction))),
    ]
    return [
        f"<details><summary>{html.escape(heading)}</summary><div class='scroll'>{content}</div></details>"
        for heading, content in folded
    ]
