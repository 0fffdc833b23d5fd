"""Runs a command line so that bad input ends in one line and exit code 2, never in a traceback.

``--verbosity=1`` brings the traceback back, for debugging.
"""

import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags, logging

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")

# The flags that this module defines are those of the module that asks for them.
flags.disclaim_key_flags()

BAD_INPUT = 2
"""The exit code of every refused command line, flag, folder or file."""


def local_path(path: str) -> str:
    """A path as a user writes it: ``~`` is the home folder.

    Raises:
        ValueError: it is the address of something remote, such as ``gs://bucket/folder``.
    """
    if _ADDRESS.match(path):
        raise ValueError(
            f"{path}: a local file or folder is needed; mount the remote one, or copy it here"
        )
    return os.path.expanduser(path)


class _LocalPath(flags.ArgumentParser):
    syntactic_help = "a path"

    def parse(self, argument: str) -> str:
        return local_path(argument)

    def flag_type(self) -> str:
        return "path"


def define_path(name: str, default: str | None, help: str, **options: Any) -> flags.FlagHolder:
    """Defines an absl flag that takes a local path, see :func:`local_path`."""
    return flags.DEFINE(
        _LocalPath(), name, default, help, serializer=flags.ArgumentSerializer(), **options
    )


def run(main: Callable[..., None], *arguments: str) -> NoReturn:
    """Parses the absl flags, calls ``main`` and leaves the process.

    Args:
        main: called with the positional arguments, as strings; its end is exit code 0.
        *arguments: the names of the positional arguments, all required, such as ``"NAME"``.

    A ``ValueError``, an ``OSError`` or a missing package in ``main``, a bad flag or a wrong number
    of arguments becomes one line on stderr and exit code 2.
    """

    def checked(argv: list[str]) -> None:
        # absl sets the level to INFO, at which Orbax logs every file it writes.
        if flags.FLAGS.verbosity == 0:
            logging.set_verbosity(logging.WARNING)
        values = argv[1:]
        if len(values) != len(arguments):
            wanted = " ".join(arguments) or "no argument (flags start with --)"
            _reject(f"expected {wanted}, got {' '.join(values) or 'none'}")
        try:
            main(*values)
            sys.stdout.flush()
        except BrokenPipeError as error:
            if error.filename is not None:
                raise
            # What reads our output has enough, as `head` has; Python must not write the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None
        except KeyboardInterrupt:
            # The first Ctrl-C during training saves; this is one elsewhere, or the second.
            print("stopped; what was saved before is whole", file=sys.stderr)
            raise SystemExit(130) from None
        except (ValueError, OSError, ModuleNotFoundError) as error:
            if flags.FLAGS.verbosity >= 1:
                raise
            _reject(_words(error))

    app.run(checked, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _reject(f"{error} (--help lists the flags)")
    except SystemExit:
        # absl exits with 1 after --help, which is no failure.
        raise SystemExit(0) from None


def _words(error: Exception) -> str:
    """An error of the system begins with the file, as ours do, not with a number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        both = filter(None, (error.filename, error.filename2))
        return f"{' and '.join(map(str, both))}: {error.strerror}"
    return str(error)


def _reject(message: str) -> NoReturn:
    print("error:", " ".join(message.split()), file=sys.stderr)
    raise SystemExit(BAD_INPUT)
