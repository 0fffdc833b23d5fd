"""Prints the results of a suite as Markdown: python -m experiments.tables --suite=music|surnn|chung

Reads the records in experiments/results/SUITE and, with --results=DIR, every result.json below DIR.
A run below DIR replaces a committed record of the same configuration and seed. A dash stands for
what has not been run.
"""

from absl import flags

from data import cli
from experiments.report import collect, runs, searches
from experiments.report.suites import SUITES

_SUITE = flags.DEFINE_string("suite", None, f"What to print: {', '.join(SUITES)}")
_RESULTS = cli.define_path("results", None, "Folder with the result.json of further runs")


def main() -> None:
    """Prints the tables that the flags ask for."""
    name = _SUITE.value
    if name not in SUITES:
        raise ValueError(f"--suite should be one of: {', '.join(SUITES)}; got {name}")
    show = searches.markdown if name == "chung" else runs.markdown
    print(show(SUITES[name], collect.collect(name, _RESULTS.value)))


if __name__ == "__main__":
    cli.run(main)
