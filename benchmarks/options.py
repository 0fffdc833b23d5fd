"""The command line of the benchmarks: a sweep over lists of values; records, a table, a plot."""

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from absl import flags
from tqdm import tqdm

from benchmarks.case import BACKENDS, SCHEDULES, SWITCHES, Case
from benchmarks.records import Record
from data import cli

_SIZES = {
    "features": "H, neurons",
    "batch": "B, sequences at once",
    "steps": "T, steps of a sequence",
    "inputs": "D, width of the input",
}


def define(rounds: int = 7, **defaults: str) -> None:
    """Defines the flags of a program; a list runs all its values, several lists their product.

    Args:
        rounds: the default of ``--rounds``; 0 for a program that times nothing.
        **defaults: of ``features``, ``batch``, ``steps`` and ``inputs``, of ``backends`` where
            they are not :data:`.case.BACKENDS`, and of those of ``rates``, ``schedules``,
            ``switches`` that the program has.
    """
    for name, text in _SIZES.items():
        flags.DEFINE_list(name, defaults[name], text)
    if "rates" in defaults:
        flags.DEFINE_list("rates", defaults["rates"], "Shares of open switches, above 0 up to 1")
    for name, known in (("schedules", SCHEDULES), ("switches", SWITCHES)):
        if name in defaults:
            more = ", a number of groups" if name == "schedules" else ""
            flags.DEFINE_list(name, defaults[name], f"Of {', '.join(known)}{more}")
    ours = defaults.get("backends", ",".join(BACKENDS))
    flags.DEFINE_list("backends", ours, "Our back ends to time")
    if rounds:
        flags.DEFINE_integer("rounds", rounds, "How often each variant is timed", lower_bound=1)
        flags.DEFINE_bool(
            "cpu_time",
            False,
            "Time what the processors spend on this process, for a machine that others use too; a "
            "variant on two cores counts twice",
        )
        if "rates" in defaults:
            cli.define_path("plot", None, "A PNG to draw: time against rate")
    flags.DEFINE_integer("seed", 0, "Of parameters, data and the order of the variants")
    cli.define_path("output", None, "A file to add the records to, instead of stdout")


def names(flag: str, *more: str) -> list[str]:
    """The values of a list of names.

    Args:
        flag: ``backends``, ``schedules`` or ``switches``.
        *more: names that only this program knows.

    Raises:
        ValueError: an unknown or repeated one, or none.
    """
    known = {"backends": BACKENDS, "schedules": SCHEDULES, "switches": SWITCHES}[flag]
    known, given = (*known, *more), flags.FLAGS[flag].value
    numbers = {name for name in given if flag == "schedules" and name.isdecimal() and int(name)}
    if not given or len(set(given)) < len(given) or not set(given) <= {*known, *numbers}:
        known = [*known, *(["a number of groups"] if flag == "schedules" else [])]
        raise ValueError(f"--{flag} must list some of {', '.join(known)}, got {','.join(given)!r}")
    return given


def back_ends(*more: str) -> list[str]:
    """The back ends asked for that are there; a line on stderr for each that is not.

    Args:
        *more: names beside :data:`.case.BACKENDS`, which a version or machine may lack.

    Raises:
        ValueError: as :func:`names`.
    """
    asked = names("backends", *more)
    from surnn_jax.scan import BACKENDS as THERE

    for name in asked:
        if name not in THERE:
            print(f"{name} is left out: there is no such back end", file=sys.stderr)
    return [name for name in asked if name in THERE]


def numbers(flag: str, kind: Callable[[str], float], most: float = float("inf")) -> list:
    """The values of a list of numbers.

    Raises:
        ValueError: one that is not a number above 0 and up to `most`, or none.
    """
    given = flags.FLAGS[flag].value
    try:
        values = [kind(text) for text in given]
        if values and all(0 < value <= most for value in values):
            return values
    except ValueError:
        pass
    what = "whole numbers above 0" if kind is int else f"numbers above 0 and up to {most:g}"
    raise ValueError(f"--{flag} must be {what}, got {','.join(given)!r}")


def cases(schedules: Iterable[str | None] = (None,), cell: str = "gru") -> list[Case]:
    """The product of the lists; for a schedule of None without rates."""
    rates = numbers("rates", float, 1) if "rates" in flags.FLAGS else [1.0]
    lists = [numbers(name, int) for name in _SIZES]
    return [
        Case(*point, schedule, rate, cell, flags.FLAGS.seed)
        for *point, schedule, rate in itertools.product(*lists, schedules, rates)
    ]


class Progress:
    """A progress bar on stderr over all calls of all cases, their number guessed from the first."""

    def __init__(self, cases: int):
        self._left = cases
        self._bar = tqdm(
            total=cases,
            unit="call",
            dynamic_ncols=True,
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
        )

    def case(self, case: Case, calls: int) -> None:
        """Starts a case that will make so many calls."""
        self._bar.total = self._bar.n + calls * self._left
        self._bar.set_description(f"{case.schedule or 'dense'} {case.asked:g}")
        self._left -= 1

    def tick(self) -> None:
        """Counts one call."""
        self._bar.update()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()


def run_all(cases: Sequence[Case], measure: Callable[[Case, Progress], list[Record]]) -> None:
    """Measures every case, writes its records at once, and prints the table and the plot.

    Raises:
        ValueError: ``--plot`` without matplotlib.
        OSError: a file that cannot be written, before anything is measured.
    """
    values = flags.FLAGS.flag_values_dict()
    plot = values.get("plot")
    if plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install matplotlib")
    if plot is not None and not Path(plot).resolve().parent.is_dir():
        raise FileNotFoundError(f"--plot={plot}: no such folder")
    from benchmarks import records
    from surnn_jax.scan.native import memory

    with ExitStack() as stack:
        output = sys.stdout
        if values["output"] is not None:
            output = stack.enter_context(open(values["output"], "a", encoding="utf-8"))
        facts = records.machine(memory.keep_freed())
        progress, lines = Progress(len(cases)), []
        stack.callback(progress.close)
        for case in cases:
            for line in measure(case, progress):
                lines.append({**line, **facts})
                output.write(records.dump(lines[-1]))
            output.flush()
    print(records.table(lines), file=sys.stderr)
    if plot is not None:
        from benchmarks import plot as plots

        plots.draw(lines, plot)


def race(
    benchmark: str, make_entrants: Callable[[Case], dict], warm: int = 0
) -> Callable[[Case, Progress], list[Record]]:
    """For :func:`run_all`: races the :class:`.timing.Entrant` of each case, by their keys."""

    def measure(case: Case, progress: Progress) -> list[Record]:
        from benchmarks import records, timing

        entrants, values = make_entrants(case), flags.FLAGS
        progress.case(case, len(entrants) * (values.rounds + 2))
        results = timing.race(
            entrants, values.rounds, values.seed, progress.tick, warm, cpu_time=values.cpu_time
        )
        clock = {"clock": "cpu"} if values.cpu_time else {}
        return [{**r, **clock} for r in records.timed(benchmark, case, entrants, *results)]

    return measure
