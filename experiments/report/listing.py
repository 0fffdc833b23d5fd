"""``--list``: the presets of an experiment, with the published and the measured figure."""

import textwrap
from collections.abc import Mapping
from typing import Any

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
    head = f"{'preset':<40}{'published':>10}{'measured':>20}{'epochs':>8}{'parameters':>12}{'s':>8}"
    lines = [
        f"python -m experiments.{name} --preset=NAME",
        f"several runs each: {', '.join(groups)}",
        head,
    ]
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
                lines.append(_line(f"{preset} {part}".strip(), config, facts, found))
            else:
                others.setdefault(config.dataset, []).append(f"{preset} {part}".strip())
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


def _line(name: str, config: Any, facts: suites.PaperTable | None, found: list[Record]) -> str:
    published = facts.published.get((config.dataset, config.kinds, config.switch_name))
    if facts.smaller(config.dataset, vars(config)):
        published = None
    quoted = f"{published.value:10.2f}" if published is not None else f"{'–':>10}"
    if not found:
        return f"{name:<40}{quoted}{'–':>20}{config.max_epochs:>8}"
    values = [headline(r)[1] for r in found]
    measured, unit = f"{min(values):.4g}", headline(found[0])[0]
    if len(values) > 1:
        measured += f" to {max(values):.4g}"
    short = {"accuracy, %": " %", "perplexity": " ppl", "mean squared error": " mse"}
    return (
        f"{name:<40}{quoted}{measured + short.get(unit, ''):>20}{config.max_epochs:>8}"
        f"{found[0].parameters:>12,}{found[0].seconds:>8.0f}"
    )


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "seed"}
