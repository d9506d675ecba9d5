"""One self-contained HTML page: figures, tables and plots, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tile:
    """One large figure with its name, and a remark below."""

    name: str
    figure: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a heading; the first column is the row's name, the first row may stand out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    emphasis: bool = True


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: what is seen, said in a sentence or two, and plots (SVG) or a table."""

    title: str
    text: str = ""
    plots: tuple[str, ...] = ()
    table: Table | None = None


_STYLE = """
:root { --ink: #1d2733; --soft: #5d6b7a; --line: #e3e8ee; --paper: #ffffff; --ground: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 17px; margin: 0 0 4px; }
p { margin: 0 0 12px; color: var(--soft); max-width: 80ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr));
  gap: 12px; margin: 20px 0; }
.tile, section { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; }
.tile { padding: 12px 16px; }
.tile b { display: block; font-size: 24px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
section { padding: 18px 20px; margin: 16px 0; overflow-x: auto; }
section svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 500; }
tbody tr:last-child td { border-bottom: 0; }
tbody tr.own td { font-weight: 600; }
footer { color: var(--soft); font-size: 13px; margin-top: 24px; }
"""


def page(
    title: str, subtitle: str, *, tiles: Sequence[Tile], sections: Sequence[Section], footer: str = ""
) -> str:
    """The whole page. Texts are escaped; plots are SVG of our own and are taken as they are."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{escape(title)}</h1><p>{escape(subtitle)}</p>",
        '<div class="tiles">',
        *(
            f'<div class="tile"><span>{escape(tile.name)}</span><b>{escape(tile.figure)}</b>'
            f"<span>{escape(tile.remark)}</span></div>"
            for tile in tiles
        ),
        "</div>",
    ]
    for section in sections:
        parts.append(f"<section><h2>{escape(section.title)}</h2>")
        if section.text:
            parts.append(f"<p>{escape(section.text)}</p>")
        parts.extend(section.plots)
        if section.table is not None:
            parts.append(_table(section.table))
        parts.append("</section>")
    if footer:
        parts.append(f"<footer>{escape(footer)}</footer>")
    parts.append("</main></body></html>")
    return "\n".join(parts) + "\n"


def write_page(path: Path, text: str) -> None:
    """Write a page in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = "".join(
        ('<tr class="own">' if number == 0 and table.emphasis else "<tr>")
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for number, row in enumerate(table.rows)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
