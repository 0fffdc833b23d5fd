"""Writes a finished run as programs that run without this library.

    python -m experiments.export runs/music/jsb-gru-0 --output=FOLDER [--platforms=cpu,cuda,tpu]

``sequence.jax`` reads whole sequences; ``step.jax`` streams, from the carry that ``begin.jax``
gives. For their arguments see :mod:`surnn_jax.layers.export`. The parameters are those of the best
epoch. Batch and time may have any size. If the own files of a run were moved, ``--data=PATH`` says
where they are.
"""

from pathlib import Path

from absl import flags

from data import cli

_OUTPUT = cli.define_path("output", None, "Folder to write into.", required=True)
_PLATFORMS = flags.DEFINE_list("platforms", None, "Some of cpu, cuda, rocm, tpu. [cpu,cuda,tpu]")
_DATA_DIR = cli.define_path("data_dir", None, "Folder of the originals; else SURNN_DATA.")
_DATA = cli.define_path("data", None, "Where the run's own files lie now, if they were moved.")


def main(workdir: str) -> None:
    """Exports the run in ``workdir`` and says how to load it."""
    output = Path(_OUTPUT.value)
    if output.exists():
        raise FileExistsError(f"{output} is there already; delete it or name another --output")

    from experiments.tasks import registry
    from surnn_jax.layers import export

    run = registry.restore(Path(workdir), _DATA_DIR.value, _DATA.value)
    model, inputs = run.prepared.model, run.prepared.inputs
    platforms = _PLATFORMS.value or export.PLATFORMS
    arguments = (model, {"params": run.params}, inputs)
    programs = {"sequence": export.sequence(*arguments, platforms=platforms)}
    missing = ""
    try:
        programs["step"] = export.step(*arguments, platforms=platforms)
        programs["begin"] = export.begin(*arguments, platforms=platforms)
    except ValueError as error:  # The sequence is still good.
        missing = str(error)
    output.mkdir(parents=True)
    for name, program in programs.items():
        (output / f"{name}.jax").write_bytes(program)
        print(f"{output / name}.jax: {len(program):,} bytes, for {', '.join(platforms)}")
    if missing:
        print(f"no step.jax: {missing}")
    dims = ", ".join(["B", "T", *map(str, inputs.shape[2:])])
    print(f"x: {inputs.dtype} [{dims}], {run.prepared.inputs_text}; lengths: int32 [B]")
    print("to load it, with jax and flatbuffers alone:")
    file = f'pathlib.Path("{output}/sequence.jax")'
    print("import pathlib; from jax import export; ", end="")
    print(f"call = export.deserialize(bytearray({file}.read_bytes())).call")


if __name__ == "__main__":
    cli.run(main, "WORKDIR")
