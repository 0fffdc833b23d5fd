"""absl flags made from the fields of a frozen dataclass, and presets they override."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from absl import flags

C = TypeVar("C")

_DEFINE = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    bool: flags.DEFINE_boolean,
}


class LaunchOptions(NamedTuple):
    """What a command line asks for beside configurations: where, and on what, but no number.

    Attributes:
        preset: its name, or None.
        workdir: the folder, or None for one named by what is run.
        data_dir: folder of the originals, or None.
        mesh: the devices that share the work, such as ``data:4``; empty for the first alone.
        distributed: the processes that share it, see
            :func:`surnn_jax.train.initialize_distributed`; empty for one.
        restore: see :class:`surnn_jax.train.Settings`.
        profile: likewise.
        tensorboard: likewise.
        command: what was asked for, less the folders and devices, which are nobody else's.
    """

    preset: str | None = None
    workdir: str | None = None
    data_dir: str | None = None
    mesh: str = ""
    distributed: str = ""
    restore: str = "latest"
    profile: bool = False
    tensorboard: bool = False
    command: str = ""


def define(config: type, presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Defines one flag a field of `config`, ``--list``, and those of :class:`Asked`.

    A field's help is its metadata entry ``help``. Every flag defaults to None, which leaves the
    value of the preset.
    """
    flags.DEFINE_string("preset", None, f"Runs with known settings, such as {min(presets)}.")
    flags.DEFINE_boolean("list", False, "Print the presets, what was published and measured; end.")
    flags.DEFINE_string("workdir", None, "Folder of the run; the same folder resumes it.")
    flags.DEFINE_string("data_dir", None, "Folder of the originals; else SURNN_DATA.")
    flags.DEFINE_string("mesh", "", "Devices that share the work: data:4, or data:4,model:2.")
    flags.DEFINE_string(
        "distributed",
        "",
        "Processes that share the work, with --mesh: auto (SLURM, TPU pod), or "
        "ADDRESS:PORT,NUMBER,COUNT.",
    )
    flags.DEFINE_boolean("profile", False, "Trace ten steps into the folder profile of the run.")
    flags.DEFINE_boolean("tensorboard", False, "Write events into the folder tensorboard, too.")
    flags.DEFINE_enum(
        "restore",
        "latest",
        ["latest", "latest_good"],
        "Of a damaged checkpoint: an error, or go on from the newest good one.",
    )
    for field in dataclasses.fields(config):
        _DEFINE[_plain(field)](field.name, None, f"{field.metadata['help']} [{field.default}]")


def parse_flags(config: type[C], presets: Mapping[str, Mapping[str, C]]) -> dict[str, C]:
    """The runs that the command line asks for: name -> configuration.

    Without a preset it is one run, named ``""``, of the defaults. Flags that are given win.

    Raises:
        ValueError: no preset of this name.
    """
    values = flags.FLAGS.flag_values_dict()
    names = (field.name for field in dataclasses.fields(config))
    given = {name: values[name] for name in names if values[name] is not None}
    preset = values["preset"]
    if preset is not None and preset not in presets:
        near = difflib.get_close_matches(preset, presets, n=4, cutoff=0.5) or sorted(presets)[:8]
        raise ValueError(f"no preset {preset!r}; such as: {', '.join(near)} (--list tells all)")
    runs = {"": config()} if preset is None else presets[preset]
    return {name: dataclasses.replace(run, **given) for name, run in runs.items()}


def parse_options(module: str, config: type) -> LaunchOptions:
    """What the command line asks for beside configurations.

    Args:
        module: that it runs, such as ``experiments.lra``.
        config: whose fields are flags.
    """
    values = {name: flags.FLAGS[name].value for name in LaunchOptions._fields if name != "command"}
    names = ["preset", *(field.name for field in dataclasses.fields(config))]
    given = (flags.FLAGS[name] for name in names if flags.FLAGS[name].present)
    return LaunchOptions(
        **values, command=" ".join([f"python -m {module}", *(flag.serialize() for flag in given)])
    )


def _plain(field: dataclasses.Field) -> type:
    """The type of a field, ``int`` for ``int | None``."""
    kind = field.type
    if isinstance(kind, types.UnionType):
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    return kind
