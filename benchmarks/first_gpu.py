"""The first minutes on a GPU: everything worth knowing, in one command and under eight minutes.

    python -m benchmarks.first_gpu --folder=runs/first_gpu       # or: make gpu-first
    python -m benchmarks.first_gpu --rehearse                    # the same on a CPU, tiny

Each part is a process with a time limit, so none takes the others down: the environment; every back
end and cell in float32 against float64; times beside `lax.scan`, Flax's RNN and cuDNN; bytes kept;
and a training run of a full preset on made images. This one imports nothing that may be missing.

The folder gets the log of each part, all records, and `summary.md`, which is printed at the end. A
back end that is not there is said to be. Status 1 if a part failed or a check differs.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks.gpu import summary

ROOT = Path(__file__).parents[1]

SECONDS, TRAINING = 465, 145
"""Of everything; and what is kept back of them for the training run, which comes last."""

REHEARSAL = 8
"""In a rehearsal all limits are so many times as long: CPUs may be busy."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        name: of its log.
        command: module and arguments.
        seconds: when it is asked to end; killed a little later.
        stops: whether being asked to end is its proper end.
        xla: flags of XLA.
    """

    name: str
    command: tuple[str, ...]
    seconds: int
    stops: bool = False
    xla: str = ""


# A whole loop as one graph that the device runs through by itself.
_GRAPHS = "--xla_gpu_enable_command_buffer=" + ",".join(
    ("FUSION", "CUBLAS", "CUBLASLT", "CUDNN", "CUSTOM_CALL", "CONDITIONAL",
     "DYNAMIC_SLICE_FUSION", "WHILE")
)  # fmt: skip


def _times(folder: Path, rehearse: bool) -> list[Part]:
    """Races in the order of their worth; a process each, its records written case by case."""
    backends = "--backends=masked,compact,cuda"
    small = {"features": "8", "batch": "2", "steps": "24", "inputs": "3"}

    def part(name: str, seconds: int, rounds: int, xla: str = "", **lists: str) -> Part:
        if rehearse:
            lists |= {k: v for k, v in small.items() if k in lists or k == "inputs"}
            lists["rates"] = ",".join(lists.get("rates", "1").split(",")[:1])
            rounds = 1
        values = {"inputs": "64", "rates": "1", "schedules": "none", **lists}
        return Part(
            name,
            (
                "benchmarks.accelerator",
                backends,
                *(f"--{k}={v}" for k, v in values.items()),
                f"--rounds={rounds}",
                f"--output={folder / 'records.jsonl'}",
            ),
            seconds,
            xla=xla,
        )

    base = {"features": "256", "batch": "64", "steps": "4096"}
    return [
        part("times-dense", 40, 5, **base),
        part("times-neuron", 35, 5, **base, rates="0.1,0.05,0.25,1", schedules="neuron"),
        part("times-graphs", 15, 3, _GRAPHS, **base, rates="0.1", schedules="neuron"),
        part("times-event-group", 30, 3, **base, rates="0.1,0.05", schedules="event,group"),
        part(
            "times-wide", 20, 3,
            features="1024", batch="64", steps="1024", rates="0.05", schedules="none,neuron",
        ),
        part(
            "times-sizes", 25, 3,
            features="256,128", batch="16,64", steps="1024", rates="0.1", schedules="neuron,none",
        ),
        part("times-lstm", 15, 3, **base, cell="lstm"),
    ]  # fmt: skip


def parts(folder: Path, rehearse: bool) -> list[Part]:
    """All of them, in order."""
    made, run = folder / "made.npz", folder / "train"
    size = ("64" if rehearse else "20000",)
    check = ("--cells=gru", "--threads=2") if rehearse else ()
    sizes = {"features": "256", "batch": "16", "steps": "512", "inputs": "64"}
    if rehearse:
        sizes = {"features": "8", "batch": "2", "steps": "24", "inputs": "3"}
    train = (
        ("--features=8", "--layers=sugru", "--batch_size=8", "--max_epochs=2", "--warmup=1",
         "--max_length=40")
        if rehearse
        else ("--max_epochs=100",)
    )  # fmt: skip
    return [
        *([] if rehearse else [Part("kernel", ("benchmarks.gpu.kernel",), 50)]),
        Part("environment", ("benchmarks.gpu.environment",), 15),
        Part(
            "selfcheck",
            ("benchmarks.gpu.selfcheck", f"--output={folder / 'selfcheck.jsonl'}", *check),
            50,
        ),
        *_times(folder, rehearse),
        Part(
            "bytes",
            (
                "benchmarks.memory", "--backends=masked,compact,cuda", "--rates=0.1", "--chunks=",
                *(f"--{k}={v}" for k, v in sizes.items()), f"--output={folder / 'bytes.jsonl'}",
            ),
            15,
        ),
        Part("images", ("benchmarks.gpu.images", str(made), *size), 10),
        Part(
            "train",
            (
                "experiments.pixels", f"--data={made}", "--preset=smnist-sugru", "--trial",
                f"--workdir={run}", *train,
            ),
            180,
            stops=True,
        ),
    ]  # fmt: skip


def allowed(part: Part, elapsed: float, training: bool) -> float:
    """Seconds that a part may take.

    Args:
        part: the part.
        elapsed: since the first began.
        training: whether the training run is among those to come.
    """
    left = SECONDS - elapsed - (TRAINING if training and not part.stops else 0)
    return max(5.0, min(part.seconds, left))


def run(part: Part, folder: Path, environment: dict[str, str], limit: float) -> tuple[str, float]:
    """Runs a part, its output to a log and to stdout.

    Returns:
        ``done``, ``stopped`` (its time was up), or what went wrong; and seconds.
    """
    began, path = time.monotonic(), folder / f"{part.name}.log"
    if part.xla:
        before = environment.get("XLA_FLAGS", "")
        environment = {**environment, "XLA_FLAGS": f"{before} {part.xla}".strip()}
    with open(path, "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *part.command],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        reader = threading.Thread(target=_copy, args=(process, log, part.name), daemon=True)
        reader.start()
        asked = False
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            asked = True
        finally:  # also if this program is asked to end
            if process.poll() is None:
                _end(process)
            reader.join(2)
            process.stdout.close()
    seconds = time.monotonic() - began
    if asked:
        return ("done" if part.stops else "stopped: its time was up"), seconds
    code = process.returncode
    return ("done" if not code else f"failed with status {code}"), seconds


def _end(process: subprocess.Popen) -> None:
    """Asks a process and its children to end, then ends them."""
    for what, patience in ((signal.SIGTERM, 8), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, what)
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def _copy(process: subprocess.Popen, log, name: str) -> None:
    for text in process.stdout:
        log.write(text)
        log.flush()
        if text.strip():
            print(f"  {name}: {text.rstrip()[:160]}", flush=True)


def environment(folder: Path, rehearse: bool) -> dict[str, str]:
    """That of the parts. A package that only draws progress bars is made up if it is missing."""
    found = {**os.environ, "PYTHONUNBUFFERED": "1", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9"}
    found["JAX_COMPILATION_CACHE_DIR"] = str(folder / "cache")
    paths = [str(ROOT)]
    try:
        import tqdm  # noqa: F401
    except ImportError:
        (folder / "lacking").mkdir(exist_ok=True)
        (folder / "lacking" / "tqdm.py").write_text(_TQDM, encoding="utf-8")
        paths.append(str(folder / "lacking"))
    if rehearse:
        found["JAX_PLATFORMS"] = "cpu"
    if before := os.environ.get("PYTHONPATH"):
        paths.append(before)
    found["PYTHONPATH"] = os.pathsep.join(paths)
    return found


_TQDM = '''"""In place of the package, which is not installed: shows nothing."""


class tqdm:
    def __init__(self, iterable=(), *args, total=None, **options):
        self.iterable, self.n, self.total = iterable, 0, total

    def __iter__(self):
        return iter(self.iterable)

    def __enter__(self):
        return self

    def __exit__(self, *given):
        return None

    def __getattr__(self, name):
        return lambda *args, **options: None

    @classmethod
    def write(cls, text, **options):
        print(text)
'''


def main() -> None:
    """Runs all parts and sums them up."""
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--folder", default="runs/first_gpu", help="where everything goes")
    reader.add_argument("--rehearse", action="store_true", help="on a CPU, at tiny sizes")
    reader.add_argument("--parts", default="", help="only those whose name contains this")
    values = reader.parse_args()
    folder = Path(values.folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    given = environment(folder, values.rehearse)
    began, states = time.monotonic(), []
    todo = [p for p in parts(folder, values.rehearse) if values.parts in p.name]
    count = len(todo)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for number, part in enumerate(todo, 1):
        print(f"[{time.monotonic() - began:5.0f} s] {number}/{count} {part.name}", flush=True)
        try:
            training = any(p.stops for p in todo)
            slow = REHEARSAL if values.rehearse else 1
            limit = slow * allowed(part, (time.monotonic() - began) / slow, training)
            state, seconds = run(part, folder, given, limit)
        except Exception as error:
            state, seconds = f"failed: {error}", 0.0
        except KeyboardInterrupt:
            state, seconds = "failed: it was asked to end", 0.0
            todo.clear()  # the rest is left out, and what there is summed up
        states.append({"part": part.name, "state": state, "seconds": round(seconds, 1)})
        print(f"  {part.name}: {state}, {seconds:.0f} s", flush=True)
        (folder / "parts.json").write_text(json.dumps(states, indent=1), encoding="utf-8")
    text = summary.write(folder, states)
    print(f"\n{text}\n\n{time.monotonic() - began:.0f} s; everything is in {folder}", flush=True)
    sys.exit(1 if any(s["state"].startswith("failed") for s in states) else 0)


if __name__ == "__main__":
    main()
