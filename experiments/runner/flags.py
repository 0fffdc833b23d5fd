"""absl flags made from the fields of a configuration, and presets they override."""

import dataclasses
import difflib
import os
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from absl import flags

from data import cli
from experiments.runner.config import flag_of

C = TypeVar("C")

_DEFINE = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    bool: flags.DEFINE_boolean,
}


class LaunchOptions(NamedTuple):
    """Where and on which devices to run; nothing here changes the numbers.

    Attributes:
        preset: its name, or None.
        workdir: the folder, or None for one named by what is run.
        data_dir: folder of the originals, or None.
        mesh: the devices that share the work, such as ``data:4``; empty for the first alone.
        distributed: the processes that share it, see
            :func:`surnn_jax.train.initialize_distributed`; empty for one.
        restore: see :class:`surnn_jax.train.Settings`.
        profile: see :class:`surnn_jax.train.Settings`.
        tensorboard: see :class:`surnn_jax.train.Settings`.
        trial: train only, and leave the best validation figure in ``trial.json``: no scores, no
            pictures, no record. The test split is not read.
        command: the command line without folders and devices, for the record.
    """

    preset: str | None = None
    workdir: str | None = None
    data_dir: str | None = None
    mesh: str = ""
    distributed: str = ""
    restore: str = "latest"
    profile: bool = False
    tensorboard: bool = False
    trial: bool = False
    command: str = ""


def define(
    config: type,
    presets: Mapping[str, Mapping[str, Any]],
    values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Defines a flag for each field of `config`, ``--list``, and those of :class:`LaunchOptions`.

    Every flag of a field defaults to None, which leaves the value of the preset. All of them count
    as flags of the program, so ``--help`` lists them.

    Args:
        config: the class of configurations.
        presets: preset -> name -> configuration.
        values: where the flags are kept.
    """
    own, before = {"flag_values": values}, set(values)
    flags.DEFINE_string("preset", None, f"Runs with known settings, such as {min(presets)}.", **own)
    flags.DEFINE_boolean(
        "list",
        False,
        "Print the presets that were measured; with --preset=TEXT, all those named so.",
        **own,
    )
    cli.define_path("workdir", None, "Folder of the run; the same folder resumes it.", **own)
    cli.define_path("data_dir", None, "Folder of the originals; else SURNN_DATA.", **own)
    flags.DEFINE_string(
        "mesh", "", "Devices that share the work: data:4, or data:4,model:2.", **own
    )
    flags.DEFINE_string(
        "distributed",
        "",
        "Processes that share the work, with --mesh: auto (SLURM, TPU pod), or "
        "ADDRESS:PORT,NUMBER,COUNT.",
        **own,
    )
    flags.DEFINE_boolean(
        "profile", False, "Trace ten steps into the folder profile of the run.", **own
    )
    flags.DEFINE_boolean(
        "tensorboard", False, "Write events into the folder tensorboard, too.", **own
    )
    flags.DEFINE_boolean(
        "trial", False, "Train only; leave the best validation figure, no record.", **own
    )
    flags.DEFINE_enum(
        "restore",
        "latest",
        ["latest", "latest_good"],
        "With a damaged checkpoint: stop with an error, or resume from the newest good one.",
        **own,
    )
    for field in dataclasses.fields(config):
        name = flag_of(field)
        define = cli.define_path if field.metadata["path"] else _DEFINE[_plain(field)]
        default = "" if field.default == "" else f" [{field.default}]"
        define(name, None, f"{field.metadata['help']}{default}", **own)
    for name in set(values) - before:
        values.register_key_flag_for_module(sys.argv[0], values[name])
    for field in dataclasses.fields(config):
        # Commands in records have the old name. `--data` was one, and names own files now.
        if field.metadata["flag"] and field.name not in ("own", "data"):
            flags.DEFINE_alias(field.name, field.metadata["flag"], **own)


def parse_flags(
    config: type[C],
    presets: Mapping[str, Mapping[str, C]],
    values: flags.FlagValues = flags.FLAGS,
    own: C | None = None,
) -> dict[str, C]:
    """The runs that the command line asks for: name -> configuration.

    Without a preset it is one run, named ``""``, of the defaults. Flags that are given win.

    Args:
        config: the class of configurations.
        presets: preset -> name -> configuration.
        values: the parsed flags.
        own: the defaults for own files, if they are others.

    Raises:
        ValueError: no preset of this name; own files together with a data set; flags that
            change nothing in any run.
    """
    given = {field.name: value for field, value in _given(config, values)}
    if "own" in given:
        given["own"] = os.path.abspath(given["own"])
        for other, name in (("dataset", "dataset" in given), ("data_dir", values.data_dir)):
            if name:
                raise ValueError(
                    f"--data={given['own']} and --{other}: own files are all that is read; leave "
                    "out one of both"
                )
    preset = values.preset
    if preset is not None and preset not in presets:
        near = difflib.get_close_matches(preset, presets, n=4, cutoff=0.5) or sorted(presets)[:8]
        raise ValueError(f"no preset {preset!r}; such as: {', '.join(near)} (--list shows all)")
    default = own if own is not None and "own" in given else config()
    runs = {"": default} if preset is None else presets[preset]
    found = {name: dataclasses.replace(run, **given) for name, run in runs.items()}
    _refuse_idle(config, given, found.values())
    return found


def _refuse_idle(config: type, given: Mapping[str, Any], runs: Iterable[Any]) -> None:
    """Refuses flags that change nothing in any run: the model would be another than meant."""
    idle = [run.idle for run in runs]
    for field in dataclasses.fields(config):
        value = given.get(field.name)
        if value and value != "none" and all(field.name in found for found in idle):
            raise ValueError(f"--{flag_of(field)}={value} has no effect: {idle[0][field.name]}")


def parse_options(
    module: str, config: type, values: flags.FlagValues = flags.FLAGS
) -> LaunchOptions:
    """The options beside configurations.

    Args:
        module: the program, such as ``experiments.lra``.
        config: the class whose fields are flags.
        values: the parsed flags.
    """
    options = {name: values[name].value for name in LaunchOptions._fields if name != "command"}
    names = ["preset"] if values.preset is not None else []
    names += [flag_of(field) for field, _ in _given(config, values)]
    given = [values[name].serialize() for name in names]
    return LaunchOptions(**options, command=" ".join([f"python -m {module}", *given]))


def _given(config: type, values: flags.FlagValues) -> list[tuple[dataclasses.Field, Any]]:
    """The fields whose flags are given, with their values."""
    found = ((field, values[flag_of(field)].value) for field in dataclasses.fields(config))
    return [(field, value) for field, value in found if value is not None]


def _plain(field: dataclasses.Field) -> type:
    """The type of a field, ``int`` for ``int | None``."""
    kind = field.type
    if isinstance(kind, types.UnionType):
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    return kind
