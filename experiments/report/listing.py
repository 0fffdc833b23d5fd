"""``--list``: the presets of an experiment, with the published and the measured figure."""

import textwrap
from collections.abc import Mapping
from typing import Any

from data import columns
from experiments.report import collect, suites
from experiments.runner.config import from_record
from experiments.runner.records import Record, headline


def show(name: str, presets: Mapping[str, Mapping[str, Any]], part_of: str | None = None) -> str:
    """A line for each preset that was measured; the others are named by task.

    "Measured" is from the committed records of exactly the preset's configuration: the result to
    expect of the command. A dash: not run yet.

    Args:
        name: the experiment.
        presets: preset -> name -> configuration.
        part_of: show a line for every preset whose name holds this text, measured or not.
    """
    suite = suites.of(name)
    facts = suites.SUITES[suite] if suite else suites.NOTHING_PUBLISHED
    done = collect.collect(suite) if suite else []
    kind = type(next(iter(next(iter(presets.values())).values())))
    # Old records have old fields; each is decoded once.
    known = [(_settings(vars(from_record(kind, record.config))), record) for record in done]
    groups = [name for name, runs in presets.items() if len(runs) > 1]
    rows = [["preset", "published", "measured", "epochs", "parameters", "s"]]
    others: dict[str, list[str]] = {}
    for preset, runs in presets.items():
        if part_of is not None and part_of not in preset:
            continue
        for part, config in runs.items():
            if len(runs) > 1 and any(other == {"": config} for other in presets.values()):
                continue  # It has a name of its own.
            wanted = _settings(vars(config))
            found = [record for settings, record in known if settings == wanted]
            if found or part_of is not None:
                rows.append(_row(f"{preset} {part}".strip(), config, facts, found))
            else:
                others.setdefault(config.dataset, []).append(f"{preset} {part}".strip())
    lines = [
        f"python -m experiments.{name} --preset=NAME",
        *textwrap.wrap(
            f"several runs each: {', '.join(groups)}",
            100,
            subsequent_indent="    ",
            break_on_hyphens=False,
        ),
        *columns.lines(rows),
    ]
    if others:
        lines += [
            "",
            "not measured yet; many have a smaller form, NAME-cpu or NAME-short "
            "(--list --preset=TEXT shows every preset with TEXT in its name):",
        ]
        for dataset, names in others.items():
            bases = (name.removesuffix("-cpu").removesuffix("-short") for name in names)
            text = f"{dataset}: {', '.join(dict.fromkeys(bases))}"
            lines += textwrap.wrap(text, 100, subsequent_indent="    ", break_on_hyphens=False)
    if facts is not None and facts.caveat:
        lines.append(facts.caveat)
    return "\n".join(lines)


def _row(name: str, config: Any, facts: suites.PaperTable | None, found: list[Record]) -> list[str]:
    published = facts.published.get((config.dataset, config.kinds, config.switch_name))
    if facts.smaller(config.dataset, vars(config)):
        published = None
    quoted = "–" if published is None else f"{published.value:.2f}"
    if not found:
        return [name, quoted, "–", str(config.max_epochs)]
    values = [headline(r)[1] for r in found]
    measured, unit = f"{min(values):.4g}", headline(found[0])[0]
    if len(values) > 1:
        measured += f" to {max(values):.4g}"
    short = {"accuracy, %": " %", "perplexity": " ppl", "mean squared error": " mse"}
    measured += short.get(unit, "")
    epochs, size, seconds = config.max_epochs, found[0].parameters, found[0].seconds
    return [name, quoted, measured, str(epochs), f"{size:,}", f"{seconds:.0f}"]


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "seed"}
