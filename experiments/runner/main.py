"""The program of an experiment script: flags in, runs out."""

from collections.abc import Callable, Mapping
from typing import NoReturn

from absl.flags import FLAGS

from data import cli
from experiments.runner import flags
from experiments.runner.config import TrainConfig

Presets = Mapping[str, Mapping[str, TrainConfig]]
"""Preset -> name of a run -> its configuration; the name ``""`` is that of a single run."""


def run(
    name: str,
    config: type[TrainConfig],
    presets: Presets,
    load: Callable,
    listing: Callable[[str, Presets, str | None], str],
    own: TrainConfig | None = None,
) -> NoReturn:
    """Runs the script of an experiment: defines its flags, trains what they ask for, and exits.

    Args:
        name: the experiment, which is also the script.
        config: the class of its configurations; every field becomes a flag.
        presets: runs with known settings.
        load: ``name -> Experiment``, such as :func:`experiments.tasks.registry.load`; it is called
            after the flags are parsed, because it imports JAX.
        listing: ``(name, presets, part of a name) -> text``: what ``--list`` prints.
        own: the defaults for own files (``--data``), if they are others.
    """
    flags.define(config, presets)

    def main() -> None:
        if FLAGS.list:
            print(listing(name, presets, FLAGS.preset))
            return
        runs = flags.parse_flags(config, presets, own=own)
        options = flags.parse_options(f"experiments.{name}", config)
        # These import JAX, which takes seconds: --help and bad flags do not wait for it.
        from experiments.runner import launch

        launch.run_all(load(name), runs, options)

    cli.run(main)
