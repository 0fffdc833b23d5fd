"""HTML by the piece: escaped text, links, tables, numbers; and the whole page."""

import html
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.report.runs import EMPTY
from experiments.report.significance import Estimate
from experiments.report.sources import SOURCES, VERIFIED, Published
from experiments.report.verdicts import Verdict

ROOT = Path(__file__).parents[2]

FOLDER = "docs/report"
"""Where the page is, below the root."""

MINUS, THIN = "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}"

NOT_RUN = '<span class="none">not run</span>'


def text(words: object) -> str:
    """Escaped text."""
    return html.escape(str(words), quote=True)


def number(value: float, digits: int | None = None) -> str:
    """Two decimals, or two digits of a small number; with a true minus sign."""
    if digits is None:
        small = abs(value) < 0.1 and value != 0
        shown = f"{value:.2g}" if small and abs(value) < 0.095 else f"{value:.2f}"
    else:
        shown = f"{value:.{digits}f}"
    return shown.replace("-", MINUS)


def interval(found: Estimate) -> str:
    """A mean with its interval, or with ``one seed``."""
    if found.n == 1:
        return f'{number(found.mean)} <span class="ci">one seed</span>'
    span = f"[{number(found.low)}, {number(found.high)}]"
    return f'{number(found.mean)} <span class="ci">{span}</span>'


def gain(found: Estimate, unit: str) -> str:
    """A gain with its interval; of a logarithm, as a factor."""
    show = _factor if unit.startswith("log") else _signed
    low, high = show(found.low), show(found.high)
    words = "" if unit.startswith("log") else f" {text(unit)}"
    span = f"{words}, one seed" if found.n == 1 else f" [{low}, {high}]{words}"
    return f'{show(found.mean)}<span class="ci">{span}</span>'


def _factor(value: float) -> str:
    return f"×{math.exp(value):.2f}" if value < math.log(9.995) else f"×{math.exp(value):.1f}"


def _signed(value: float) -> str:
    shown = number(value, 2)
    return shown if value < 0 or shown == "0.00" else f"+{shown}"


def link(target: str, words: object, kind: str = "") -> str:
    """A link."""
    mark = f' class="{kind}"' if kind else ""
    return f'<a{mark} href="{text(target)}">{text(words)}</a>'


def file(path: Path) -> str:
    """The address of a file of the repository, seen from the page."""
    return Path(os.path.relpath(path, ROOT / FOLDER)).as_posix()


def published(figure: Published | None) -> str:
    """A published figure with its tag and source."""
    if figure is None:
        return EMPTY
    source = SOURCES[figure.source]
    kind = "tag sure" if figure.tag == VERIFIED else "tag"
    return (
        f'{figure.value:.2f} <a class="{kind}" href="#source-{figure.source}" '
        f'title="{text(source.short)}">{figure.tag}</a>'
    )


def badge(verdict: Verdict) -> str:
    """A verdict as a coloured word."""
    mark = {Verdict.HOLDS: "✓", Verdict.FAILS: "✗", Verdict.OPEN: "?"}[verdict]
    return (
        f'<span class="verdict {verdict.name.lower()}">'
        f'<span aria-hidden="true">{mark}</span>{THIN}{verdict.value}</span>'
    )


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "", caption: str = ""
) -> str:
    """A table that scrolls by itself if it is too wide. Cells are HTML; the first is a heading."""
    lines = [
        f'<div class="scroll"><table class="{kind}">' if kind else '<div class="scroll"><table>'
    ]
    if caption:
        lines.append(f"<caption>{caption}</caption>")
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines.append(f"<thead><tr>{cells}</tr></thead><tbody>")
    for first, *rest in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table></div>"])


def section(name: str, title: str, *parts: str) -> str:
    """A section with a heading that can be linked to."""
    body = "\n".join(part for part in parts if part)
    return (
        f'<section id="{name}">\n<h2><a href="#{name}">{text(title)}</a></h2>\n{body}\n</section>'
    )


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph of HTML."""
    return f'<p class="{kind}">{words}</p>' if kind else f"<p>{words}</p>"


def commands(name: str, listed: Sequence[str]) -> str:
    """Commands to look up, closed at first; each can be linked to as ``NAME-1`` and so on."""
    if not listed:
        return ""
    items = "\n".join(
        f'<li id="{name}-{place}"><code>{text(command)}</code></li>'
        for place, command in enumerate(listed, 1)
    )
    return f"<details><summary>Commands</summary>\n<ol>\n{items}\n</ol></details>"


def page(title: str, lead: str, contents: Sequence[tuple[str, str]], body: Sequence[str]) -> str:
    """The whole document.

    Args:
        title: of the page.
        lead: HTML below it.
        contents: (name of a section, its title) for the list of contents.
        body: sections.
    """
    style = Path(__file__).with_name("page.css").read_text()
    listed = "".join(f"<li>{link('#' + name, words)}</li>" for name, words in contents)
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{text(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{text(title)}</h1>
{lead}
<nav aria-label="Contents"><ol>{listed}</ol></nav>
</header>
<main>
{chr(10).join(body)}
</main>
</body>
</html>
"""
