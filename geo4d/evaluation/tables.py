"""Results beside published rows, as text, Markdown, LaTeX or HTML. Errors never stand without their coverage."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from geo4d.evaluation.published import PUBLISHED, PublishedRow

TableFormat = Literal["text", "markdown", "latex", "html"]

LABELS = {
    "abs_rel": "AbsRel",
    "sq_rel": "SqRel",
    "rmse": "RMSE",
    "rmse_log": "RMSE log",
    "silog": "SILog",
    "log10": "log10",
    "delta_125": "δ<1.25",
    "coverage": "covered",
    "point_rel": "Rel^p",
    "point_delta": "δ^p",
    "point_coverage": "points covered",
    "ate": "ATE",
    "rpe_trans": "RPE trans",
    "rpe_rot_deg": "RPE rot (deg)",
    "pose_coverage": "posed",
    "seconds_per_frame": "s/frame",
    "depth_change": "depth change",
    "fx_rel": "fx",
    "fy_rel": "fy",
    "cx_rel": "cx / width",
    "cy_rel": "cy / height",
    "fy_fx_rel": "fy / fx",
    "intrinsics_coverage": "intrinsics",
    "depth_over_cameras": "depth / cameras",
    "flicker_static": "flicker, static",
    "flicker_moving": "flicker, moving",
}
_COVERAGE = {
    "abs_rel": "coverage",
    "sq_rel": "coverage",
    "rmse": "coverage",
    "rmse_log": "coverage",
    "silog": "coverage",
    "log10": "coverage",
    "point_rel": "point_coverage",
    "ate": "pose_coverage",
    "rpe_trans": "pose_coverage",
    "rpe_rot_deg": "pose_coverage",
    "depth_change": "depth_change_coverage",
    "fx_rel": "intrinsics_coverage",
    "fy_rel": "intrinsics_coverage",
    "fy_fx_rel": "intrinsics_coverage",
    "cx_rel": "intrinsics_coverage",
    "cy_rel": "intrinsics_coverage",
}
"""Error -> the coverage that must stand beside it."""


@dataclass(frozen=True)
class Table:
    """Attributes:
    title: above the table.
    columns: labels, the first is that of the row names.
    rows: text of every cell.
    notes: below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def render(self, kind: TableFormat = "text") -> str:
        """The table in a format; notes follow it."""
        return {"text": _text, "markdown": _markdown, "latex": _latex, "html": _html}[kind](self)


def with_coverage(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns with the coverage of every error among them."""
    result = list(columns)
    for column in columns:
        needed = _COVERAGE.get(column)
        if needed is not None and needed not in result:
            result.append(needed)
    return tuple(result)


def result_table(result: Mapping[str, Any], *, sequences: bool = True, published: bool = True) -> Table:
    """Table of one result file: its sequences, mean and median, and published rows."""
    columns = with_coverage(list(result["columns"]))
    rows = []
    if sequences:
        rows += [
            (row["name"], *(_cell(row.get(column)) for column in columns)) for row in result["sequences"]
        ]
    for name in ("mean", "median"):
        rows.append((name, *(_cell(result[name].get(column)) for column in columns)))
    if "mean_by_pixels" in result:
        rows.append(("mean by pixels", *(_cell(result["mean_by_pixels"].get(column)) for column in columns)))
    for kind, label in (("template", "mean training disparity"), ("static", "static camera")):
        if kind in result:
            rows.append((label, *(_cell(result[kind].get(column)) for column in columns)))
            median = result[kind]["median"]
            rows.append((f"{label}, median", *(_cell(median.get(column)) for column in columns)))
    if published and result.get("published"):
        rows += [_published_row(row, columns) for row in PUBLISHED[result["published"]]]
    return Table(
        title=f"{result['benchmark']}: {result['title']}",
        columns=("", *(LABELS.get(column, column) for column in columns)),
        rows=tuple(rows),
        notes=_notes(result, columns, published),
    )


def baseline_table(result: Mapping[str, Any], *, most_sequences: int = 16) -> Table | None:
    """What must be beaten beside the whole, on the same pixels; None where it was not scored.

    Args:
        most_sequences: up to so many, every sequence has rows of its own; else the means stand alone.
    """
    if "baselines" not in result:
        return None
    regions = ("", "_with_evidence", "_without_evidence")
    columns = [f"{metric}{region}" for region in regions for metric in ("abs_rel", "delta_125")]
    scored = [row for row in result["sequences"] if "baselines" in row]
    rows = []
    if len(scored) <= most_sequences:
        for row in scored:
            for name, values in {"whole": row["whole_median"], **row["baselines"]}.items():
                cells = (_cell(values.get(column)) for column in columns)
                rows.append((f"{row['name']}: {name}", *cells))
    for name, values in result["baselines"].items():
        rows.append((f"mean: {name}", *(_cell(values.get(column)) for column in columns)))
    return Table(
        title=f"{result['benchmark']}: the whole beside what must be beaten",
        columns=(
            "",
            *(
                f"{LABELS[metric]}{label}"
                for label in ("", ", evidence", ", none")
                for metric in ("abs_rel", "delta_125")
            ),
        ),
        rows=tuple(rows),
        notes=(
            "one factor per sequence, median of reference over prediction, whatever the protocol; "
            "ramp: one scale and shift of disparity per sequence, pictures_affine: one per frame",
            "evidence: pixels where motion tells a depth; none: all others. "
            "The row of the evidence counts its own pixels only",
        ),
    )


def confidence_table(result: Mapping[str, Any]) -> Table | None:
    """Claimed and true shares of depths within 10 %, over all sequences; None where nothing claims anything."""
    pooled = result.get("confidence")
    if pooled is None:
        return None
    rows = tuple(
        (f"{10 * index} to {10 * index + 10} %", _cell(group["claimed"]), _cell(group["true"]))
        for index, group in enumerate(pooled["deciles"])
    )
    mean = result["mean"]
    kept = ", ".join(
        f"{label} {_cell(mean.get(name))}"
        for name, label in (
            ("kept", "of finite pixels"),
            ("kept_moving", "of moving ones"),
            ("kept_abs_rel", "AbsRel of kept / of all"),
            ("dropped_error", "median error of dropped / of kept"),
        )
    )
    return Table(
        title=f"{result['benchmark']}: confidence, least to most",
        columns=("pixels", "claimed", "true"),
        rows=rows,
        notes=(
            f"largest difference {_cell(pooled['gap'])}; Spearman with -error, pooled: {_cell(pooled['spearman'])}",
            f"kept by default exports, means over sequences: {kept}",
        ),
    )


def ablation_table(kind: str, variants: Mapping[str, Mapping[str, Any]], *, published: bool = True) -> Table:
    """Mean of every variant, and the paper's rows of the same ablation."""
    first = next(iter(variants.values()))
    columns = with_coverage([*first["columns"], "seconds_per_frame"])
    rows = []
    for name, result in variants.items():
        mean = {**result["mean"], "seconds_per_frame": seconds_per_frame(result)}
        rows.append((name, *(_cell(mean.get(column)) for column in columns)))
    if published:
        rows += [_published_row(row, columns) for row in PUBLISHED[f"ablation/{kind}"]]
    notes = list(_notes(first, columns, False))
    if published:
        notes.append(
            "published rows are Geo4D on Sintel; compare the order, not the values, with another benchmark"
        )
    return Table(
        title=f"{first['benchmark']}: {kind} of {first['model']}",
        columns=("", *(LABELS.get(column, column) for column in columns)),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def seconds_per_frame(result: Mapping[str, Any]) -> float | None:
    """Predicting time of a result over its frames."""
    frames = sum(row["num_sequence_frames"] for row in result["sequences"])
    return sum(row["predicting_seconds"] for row in result["sequences"]) / frames if frames else None


def _published_row(row: PublishedRow, columns: Sequence[str]) -> tuple[str, ...]:
    return (f"{row.method} [published]", *(_cell(row.values.get(column)) for column in columns))


def _notes(result: Mapping[str, Any], columns: Sequence[str], published: bool) -> tuple[str, ...]:
    protocol = result["protocol"]
    notes = [f"protocol {protocol['name']}: {protocol['source']}"]
    partial = [
        f"{LABELS.get(column, column)} over {result['counts'].get(column, 0)} of {result['num_sequences']}"
        for column in columns
        if 0 < result["counts"].get(column, 0) < result["num_sequences"]
    ]
    if partial:
        notes.append("means are over the sequences that determine them: " + ", ".join(partial))
    for entry in result["degenerate"]:
        notes.append(f"degenerate: {entry['name']}, {entry['part']}: {entry['reason']}")
    for entry in result.get("failed", ()):
        notes.append(f"failed, all wrong: {entry['name']}: {entry['reason']}")
    notes += [
        f"warning: {row['name']}: {warning}" for row in result["sequences"] for warning in row["warnings"]
    ]
    if published and result.get("published"):
        sources = sorted({row.source for row in PUBLISHED[result["published"]]})
        notes.append("published rows: " + "; ".join(sources))
        notes += [f"{row.method}: {row.note}" for row in PUBLISHED[result["published"]] if row.note]
    return tuple(notes)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) and abs(value) >= 1000:
        return f"{value:.4g}"
    return f"{value:.4f}" if isinstance(value, int | float) else str(value)


def _text(table: Table) -> str:
    widths = [max(len(row[i]) for row in (table.columns, *table.rows)) for i in range(len(table.columns))]
    lines = [table.title, ""]
    for row in (table.columns, *table.rows):
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
        if row is table.columns:
            lines.append("  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *table.notes])


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "| --- |" + " ---: |" * (len(table.columns) - 1)
    body = [line(table.columns), rule, *(line(row) for row in table.rows)]
    return "\n".join([f"**{table.title}**", "", *body, "", *(f"- {note}" for note in table.notes)])


_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
          "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "$": r"\$", "δ": r"$\delta$", "<": r"$<$"}  # fmt: skip


def _latex(table: Table) -> str:
    def escape(text: str) -> str:
        return "".join(_LATEX.get(character, character) for character in text)

    def line(cells: Sequence[str]) -> str:
        return " & ".join(escape(cell) for cell in cells) + r" \\"

    return "\n".join(
        [
            *(f"% {note}" for note in table.notes),
            r"\begin{table}",
            rf"\caption{{{escape(table.title)}}}",
            r"\begin{tabular}{l" + "r" * (len(table.columns) - 1) + "}",
            r"\hline",
            line(table.columns),
            r"\hline",
            *(line(row) for row in table.rows),
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _html(table: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "\n".join(
        [
            "<table>",
            f"<caption>{html.escape(table.title)}</caption>",
            f"<thead>{line(table.columns, 'th')}</thead>",
            "<tbody>",
            *(line(row, "td") for row in table.rows),
            "</tbody>",
            "</table>",
            "<ul>",
            *(f"<li>{html.escape(note)}</li>" for note in table.notes),
            "</ul>",
        ]
    )
