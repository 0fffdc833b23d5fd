"""absl flags made from the fields of a frozen dataclass, and presets they override."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from absl import flags

C = TypeVar("C")

_DEFINE = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    bool: flags.DEFINE_boolean,
}


def define(config: type, presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Defines ``--preset``, ``--workdir``, ``--data_dir`` and one flag a field of `config`.

    A field's help is its metadata entry ``help``. Every flag defaults to None, which leaves the
    value of the preset.
    """
    flags.DEFINE_string("preset", None, f"Runs with known settings, such as {min(presets)}.")
    flags.DEFINE_boolean("list", False, "Print the presets, what was published and measured; end.")
    flags.DEFINE_string("workdir", None, "Folder of the run; the same folder resumes it.")
    flags.DEFINE_string("data_dir", None, "Folder of the originals; else SURNN_DATA.")
    for field in dataclasses.fields(config):
        _DEFINE[_plain(field)](field.name, None, f"{field.metadata['help']} [{field.default}]")


def chosen(config: type[C], presets: Mapping[str, Mapping[str, C]]) -> dict[str, C]:
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


def command(module: str, config: type) -> str:
    """What was asked for, less the folders, which are nobody else's."""
    names = ["preset", *(field.name for field in dataclasses.fields(config))]
    given = (flags.FLAGS[name] for name in names if flags.FLAGS[name].present)
    return " ".join([f"python -m {module}", *(flag.serialize() for flag in given)])


def _plain(field: dataclasses.Field) -> type:
    """The type of a field, ``int`` for ``int | None``."""
    kind = field.type
    if isinstance(kind, types.UnionType):
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    return kind
