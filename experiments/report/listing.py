"""``--list``: every preset of an experiment, with the published and the measured figure."""

import json
from collections.abc import Mapping
from typing import Any

from experiments.report import collect, suites
from experiments.runner.records import Record, headline


def show(name: str, presets: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for each preset of a single run; those of several are named first.

    "Measured" is from the committed records of exactly the preset's configuration: the result to
    expect of the command. A dash: not run yet.

    Args:
        name: the experiment.
        presets: preset -> name -> configuration.
    """
    suite = suites.of(name)
    facts = suites.SUITES[suite] if suite else suites.NOTHING_PUBLISHED
    done = collect.collect(suite) if suite else []
    groups = [name for name, runs in presets.items() if len(runs) > 1]
    head = f"{'preset':<40}{'published':>10}{'measured':>20}{'epochs':>8}{'parameters':>12}{'s':>8}"
    lines = [
        f"python -m experiments.{name} --preset=NAME",
        f"several runs each: {', '.join(groups)}",
        head,
    ]
    for preset, runs in presets.items():
        for part, config in runs.items():
            if len(runs) > 1 and any(other == {"": config} for other in presets.values()):
                continue  # It has a name of its own.
            lines.append(_line(f"{preset} {part}".strip(), config, facts, done))
    if facts is not None and facts.caveat:
        lines.append(facts.caveat)
    return "\n".join(lines)


def _line(name: str, config: Any, facts: suites.PaperTable | None, done: list[Record]) -> str:
    wanted = json.dumps(_settings(vars(config)), sort_keys=True)
    found = [r for r in done if json.dumps(_settings(r.config), sort_keys=True) == wanted]
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
