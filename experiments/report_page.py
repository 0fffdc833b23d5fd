"""Writes the report, one HTML page made of the committed records: python -m experiments.report_page

Without a flag it writes docs/report/index.html, the committed page; a test compares the two. The
page links to records by paths in the repository. It takes seconds, and trains nothing.
"""

from pathlib import Path

from data import cli
from experiments.report import html, page

NAME = "index.html"

_OUTPUT = cli.define_path("output", None, "File to write; by default docs/report/index.html")


def main() -> None:
    """Writes the page and prints where it is."""
    path = Path(_OUTPUT.value) if _OUTPUT.value else html.ROOT / html.FOLDER / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.build(), encoding="utf-8", newline="\n")
    print(path)


if __name__ == "__main__":
    cli.run(main)
