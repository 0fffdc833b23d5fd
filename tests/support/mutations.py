"""Breaks the code on purpose, one small edit at a time, to see that a test notices each.

    python tests/support/mutations.py [PREFIX...]

An entry of ``tests/mutations/*.toml`` says what it ``breaks``, the ``file``, the ``old`` text that
stands in it ``count`` times (1 by default), the ``new`` text, and the ``tests``, of which one that
`make test` runs must fail. With ``native = true`` the compiled kernel is built anew. Everything
happens in a copy of the tree. PREFIX picks the entries by the beginning of their names.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".git", ".venv", ".cache", "runs", "build", "dist", "__pycache__")
SECONDS = 600
"""A mutation after which nothing comes to its end is caught, too."""


def entries(prefixes: list[str]) -> dict[str, dict[str, Any]]:
    """Name -> entry; those whose name begins with one of the prefixes, or all."""
    found = {}
    for path in sorted((ROOT / "tests" / "mutations").glob("*.toml")):
        found |= tomllib.loads(path.read_text())
    return {n: e for n, e in found.items() if not prefixes or n.startswith(tuple(prefixes))}


def mutated(tree: Path, entry: dict[str, Any]) -> str:
    """The text of the entry's file after the edit.

    Raises:
        ValueError: the old text does not stand there as often as it should.
    """
    text = (tree / entry["file"]).read_text()
    if (times := text.count(entry["old"])) != (wanted := entry.get("count", 1)):
        raise ValueError(f"{entry['file']}: the old text stands there {times} times, not {wanted}")
    return text.replace(entry["old"], entry["new"])


def python(
    tree: Path, *command: str, seconds: float | None = SECONDS
) -> subprocess.CompletedProcess[str]:
    """Runs Python in the copy; hypothesis draws the same examples every time."""
    settings = {
        "CI": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env=settings | dict(os.environ) | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def run_tests(
    tree: Path, tests: list[str], *options: str, seconds: float | None = SECONDS
) -> tuple[int, list[str], str]:
    """Runs tests as `make test` would.

    Returns:
        pytest's exit code, the names of those that failed, and the last line that it prints.
    """
    command = ["-m", "pytest", "-q", "-m", "not full", "--tb=no", "-rfE", *options, *tests]
    done = python(tree, *command, seconds=seconds)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()
    failed = [line.split(" - ")[0] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return done.returncode, [line.split(" ", 1)[1] for line in failed], lines[-1]


def outcome(tree: Path, entry: dict[str, Any], broken: list[str]) -> str:
    """``caught`` and by what, ``SURVIVED``, or ``ERROR`` and why; `broken` tests are not asked."""
    file = tree / entry["file"]
    before = file.read_bytes()
    try:
        file.write_text(mutated(tree, entry))
        if entry.get("native"):
            built = python(tree, "-m", "surnn_jax.scan.native.build")
            if built.returncode:
                return f"ERROR {built.stderr.strip().splitlines()[-1]}"
        left_out = [f"--deselect={test}" for test in broken]
        code, failed, last = run_tests(tree, entry["tests"], "-x", *left_out)
    except ValueError as error:
        return f"ERROR {error}"
    except subprocess.TimeoutExpired:
        return "caught: it never ends"
    finally:
        file.write_bytes(before)
    if code == 1 and failed:
        return f"caught by {failed[0]}"
    return "SURVIVED" if code == 0 else f"ERROR {last}"


def main(*prefixes: str) -> None:
    """Tries every entry, and ends with 1 unless each is caught."""
    chosen = entries(list(prefixes))
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
        # A test that fails anyway catches nothing.
        tests = sorted({test for entry in chosen.values() for test in entry["tests"]})
        code, broken, last = run_tests(tree, tests, seconds=None)
        if code > 1:
            sys.exit(f"error: {last}")
        for test in broken:
            print(f"fails without any edit: {test}", flush=True)
        caught = 0
        # Those that build the kernel come last: it stays as the last of them left it.
        for name, entry in sorted(chosen.items(), key=lambda item: item[1].get("native", False)):
            start = time.monotonic()
            found = outcome(tree, entry, broken)
            caught += found.startswith("caught")
            print(f"{name:34}{time.monotonic() - start:6.1f} s  {found}", flush=True)
    print(f"{caught} of {len(chosen)} caught")
    sys.exit(caught < len(chosen))


if __name__ == "__main__":
    main(*sys.argv[1:])
