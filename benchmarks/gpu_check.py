"""Compiles for GPUs that are not there, counts, and compares with a table.

    make gpu-check                                    # about ten minutes on two cores
    python -m benchmarks.gpu_check --devices=a100,b200 --programs=masked
    python -m benchmarks.gpu_check --presets=lra --devices=rtx4090    # do the full presets fit?
    python -m benchmarks.gpu_check --write            # the table is what was found now

For every program: launches a step (of loops whose number of turns is known), launches and waits of
the host in a turn of the others, memory, and the registers and spills of its kernels. Ends with
status 1 if something is worse than in `results/gpu_compiled.json`, or does not fit into the device.
Kernels are chosen as XLA chooses them without timing; no time is measured or estimated here.

Wants jax and its CUDA plug-in, but neither a GPU nor a driver: `make gpu-check` sets up
`.cache/gpu` for it.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from data import cli

TABLE = Path(__file__).parent / "results" / "gpu_compiled.json"

_MARGIN = 1.02
"""Memory may grow by so much before it counts as worse."""


def describe(built: Any, steps: int) -> dict[str, Any]:
    """What the table holds of a program."""
    loops = list(built.counts.loops())
    # Those within others are counted with them.
    outer = [loop for loop in built.counts.inner if loop.turns is not None]
    return {
        "launches_per_step": round(sum(i.turns * i.launches for i in outer) / steps, 3),
        # Launches and waits of a turn of each loop whose number of turns depends on numbers.
        "open_loops": [[i.launches, i.syncs] for i in loops if i.turns is None],
        "once": built.counts.kernels + built.counts.copies,
        "syncs": sum(i.syncs for i in loops) + built.counts.syncs,
        "megabytes": round(built.memory / 1e6),
        "registers": built.registers if built.kernels else None,
        "spills": built.spills if built.kernels else None,
    }


def worse(found: dict[str, Any], known: dict[str, Any]) -> list[str]:
    """What is worse than the table says, in words."""
    said = []
    for name in ("launches_per_step", "syncs", "registers", "spills"):
        if None in (found[name], known[name]):  # without machine code
            continue
        if found[name] > known[name] + 1e-6:
            said.append(f"{name} {found[name]} instead of {known[name]}")
    if found["megabytes"] > known["megabytes"] * _MARGIN + 1:
        said.append(f"{found['megabytes']} MB instead of {known['megabytes']}")

    def open_turns(row: dict[str, Any]) -> int:
        return sum(launches for launches, _ in row["open_loops"])

    if open_turns(found) > open_turns(known):
        said.append(f"{open_turns(found)} launches in open loops instead of {open_turns(known)}")
    return said


def line(device: str, name: str, row: dict[str, Any], seconds: float) -> str:
    """One line for people."""
    turns = ", ".join(
        f"{launches} and {syncs} waits a turn" for launches, syncs in row["open_loops"]
    )
    return (
        f"{device:8} {name:40} {row['launches_per_step']:6.2f} a step"
        f"{'; ' + turns if turns else ''}; {row['once']} once; {row['megabytes']:,} MB; "
        f"{row['registers'] or 'no'} registers, {row['spills'] or 0} spilled; {seconds:.0f} s"
    )


def _chosen() -> list[tuple[str, Any]]:
    """Pairs of a device and a program."""
    from benchmarks.gpu import ahead, programs

    values = flags.FLAGS
    unknown = set(values.devices) - set(ahead.DEVICES)
    if unknown or not values.devices:
        raise ValueError(f"--devices must list some of {', '.join(ahead.DEVICES)}")
    if values.presets is not None:
        parts = [] if values.presets == ["all"] else values.presets
        found = [programs.preset_program(*pair) for pair in programs.full_presets(parts)]
        return [(device, p) for device in values.devices for p in found]
    layers = programs.layer_programs()
    families = [programs.preset_program(*pair) for pair in programs.FAMILIES]
    pairs = []
    for device in values.devices:
        # The first device gets everything; what differs on the others is the kernels.
        every = device == values.devices[0] or values.all or values.programs
        some = [*layers, *families] if every else layers[1:2]
        pairs += [(device, p) for p in some if values.programs in p.name]
    return pairs


def _table() -> dict[str, Any]:
    """The programs of the committed table."""
    return json.loads(TABLE.read_text(encoding="utf-8"))["programs"] if TABLE.exists() else {}


def _write(programs: dict[str, Any]) -> None:
    from importlib.metadata import version

    names = ("jax", "jaxlib", "jax-cuda13-plugin", "nvidia-cuda-nvcc")
    versions = {name: version(name) for name in names}
    # Read anew: another run may have written, on other devices.
    programs = _table() | programs
    table = {"versions": versions, "programs": dict(sorted(programs.items()))}
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Compiles what the flags ask for."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # Without the plug-in's own talk about the driver that is not there.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax

    from benchmarks.gpu import ahead

    values = flags.FLAGS
    jax.config.update("jax_enable_compilation_cache", False)
    known, found, bad = _table(), {}, []
    for device, program in _chosen():
        began, key = time.monotonic(), f"{device}: {program.name}"
        if values.missing and key in known:
            continue
        try:
            function, arguments = program.make()
            whole = values.presets is None
            built = ahead.build(
                function, arguments, device, assemble=whole, donate_argnums=program.donate
            )
        except Exception as error:  # whatever it is, the others are still worth knowing
            bad.append(f"{key}: {type(error).__name__}: {str(error)[:300]}")
            print(bad[-1], flush=True)
            continue
        row = found[key] = describe(built, program.steps)
        print(line(device, program.name, row, time.monotonic() - began), flush=True)
        if values.write:
            _write(found)
        if built.memory > 0.9 * ahead.capacity(device):
            bad.append(f"{key}: {row['megabytes']:,} MB do not fit")
        if not values.write and key in known:
            bad += [f"{key}: {text}" for text in worse(row, known[key])]
    for text in bad:
        print(f"WORSE  {text}", file=sys.stderr)
    print(f"{len(found)} programs compiled, {len(bad)} worse or not fitting")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    flags.DEFINE_list("devices", "h200,a100,h100,b200", "Which; the first gets every program")
    flags.DEFINE_string("programs", "", "Only those whose name contains this, on every device")
    flags.DEFINE_list("presets", None, "Full presets by names or parts of them; or all: hours")
    flags.DEFINE_boolean("missing", False, "Only what the table lacks")
    flags.DEFINE_boolean("all", False, "Every program on every device")
    flags.DEFINE_boolean("write", False, "Write the table instead of comparing with it")
    cli.run(main)
