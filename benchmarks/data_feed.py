"""How fast batches are made of prepared data, against how fast a model uses them up; and memory.

    python -m benchmarks.data_feed --batch=32 --features=128

Splits of random data are written as the package writes them, into a folder that goes afterwards,
and read back, memory-mapped. `listops`: sequences of 500 to 2,000 tokens, by length; `images`:
1,024 pixels; `stream`: windows of 150 tokens of a stream. The consumer of each is a training step
of the fastest unit that we have, a suGRU whose switch opens 5 % of the updates and is frozen, on
inputs of width 1 and as many steps as the batches have on average.

`resident` reads one epoch of a stream as long as WikiText-103 in a process of its own, on to the
device, and gives the most memory that the process had at any time. Pages of the file count; the
system takes those back when it needs them. `anonymous_bytes` at the end do not hold such pages.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from absl import flags

from benchmarks.case import Case
from data import cli
from data.paths import ROOT

FEEDS = ("listops", "images", "stream", "resident")
WIKITEXT_103 = 103_227_021
"""Tokens of its training text."""

_STEPS = 150
_EPOCH = "import sys; from benchmarks import data_feed; data_feed.epoch_of(*sys.argv[1:])"


def define() -> None:
    """Defines the flags."""
    flags.DEFINE_list("feeds", list(FEEDS), f"Of {', '.join(FEEDS)}")
    flags.DEFINE_integer("batch", 32, "B, examples of a batch", lower_bound=1)
    flags.DEFINE_integer("examples", 4096, "Examples of a split", lower_bound=2)
    flags.DEFINE_integer("tokens", WIKITEXT_103, "Tokens of the long stream", lower_bound=2)
    flags.DEFINE_integer("features", 128, "H of the consumer; 0: none", lower_bound=0)
    flags.DEFINE_integer("rounds", 5, "How often each is timed", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of data, order and parameters", lower_bound=0)
    cli.define_path("output", None, "A file to add the records to, instead of stdout")


def written(folder: Path, feed: str, examples: int, seed: int):
    """The training split of random data of the shape of a feed, memory-mapped."""
    import numpy as np

    from data import storage
    from data.source import SPLITS, Column, Reading

    random = np.random.default_rng(seed)
    kinds = {
        "listops": {"x": Column("uint8", (None,), ""), "y": Column("uint8", (), "")},
        "images": {"x": Column("uint8", (1024,), ""), "y": Column("uint8", (), "")},
        "stream": {"x": Column("int32", (None,), "")},
    }[feed]

    def made() -> Iterator:
        for number in range(1 if feed == "stream" else examples):
            if feed == "listops":
                x = random.integers(1, 16, random.integers(501, 2000), np.uint8)
            elif feed == "images":
                x = random.integers(0, 256, 1024, np.uint8)
            else:
                x = random.integers(0, 267_735, examples, np.int32)
            label = {"y": number % 10} if "y" in kinds else {}
            yield str(number), {"x": x, **label}

    splits = dict.fromkeys(SPLITS, ()) | {"train": made()}
    storage.write(feed, kinds, Reading(feed, splits, {}, None), folder)
    return storage.read(folder, "train")


def batches(feed: str, split, batch: int, seed: int) -> tuple[Callable[[int], dict], int]:
    """What makes the batch of a step, and how many there are in an epoch."""
    from data.batches import Batches
    from data.streams import Streams

    if feed == "stream":
        source = Streams(split["x"][0], batch, _STEPS, seed)
    else:
        source = Batches(split.columns, batch, seed)
    return source.batch, source.steps_per_epoch


def feed_times(make: Callable[[int], dict], epoch: int, rounds: int) -> list[float]:
    """Seconds a batch, for each round of an epoch, or of the first 200 batches of a long one."""
    times, count = [], min(epoch, 200)
    for number in range(rounds):
        start = time.perf_counter()
        for step in range(number * epoch, number * epoch + count):
            make(step)
        times.append((time.perf_counter() - start) / count)
    return times


def consumed(features: int, batch: int, steps: int, rounds: int, seed: int) -> tuple[str, float]:
    """The back end of the consumer, and the examples a second that it uses up."""
    import jax
    import numpy as np

    from benchmarks import problem

    case = Case(features, batch, steps, 1, "neuron", 0.05, seed=seed)
    posed = problem.pose(case)
    backend = "native" if problem.supports("native", posed.unit, case) else "masked"
    call = problem.step(problem.ours(posed.unit, backend), posed)
    times = []
    for _ in range(rounds + 1):  # The first compiles.
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return backend, batch / float(np.median(times[1:]))


def measure(feed: str, folder: Path) -> dict:
    """The record of a feed through `Batches` or `Streams`."""
    import numpy as np

    batch, rounds, seed = flags.FLAGS.batch, flags.FLAGS.rounds, flags.FLAGS.seed
    # As many tokens for the stream as there are pixels.
    count = 1024 * flags.FLAGS.examples if feed == "stream" else flags.FLAGS.examples
    split = written(folder, feed, count, seed)
    make, epoch = batches(feed, split, batch, seed)
    times = feed_times(make, epoch, rounds)
    steps = int(np.mean([make(step)["x"].shape[1] for step in range(min(epoch, 50))]))
    line = {"benchmark": "data_feed", "feed": feed, "batch": batch, "steps": steps}
    line |= {"rounds": rounds, "milliseconds": 1e3 * float(np.median(times))}
    line["spread"] = [1e3 * float(v) for v in np.percentile(times, (0, 25, 75))]
    line["examples_per_second"] = batch / float(np.median(times))
    if flags.FLAGS.features:
        backend, speed = consumed(flags.FLAGS.features, batch, steps, rounds, seed)
        line |= {
            "consumer": backend,
            "features": flags.FLAGS.features,
            "consumed_per_second": speed,
        }
        line["ratio"] = line["examples_per_second"] / speed
    return line


def resident(folder: Path) -> dict:
    """The record of the memory that an epoch of a long stream takes."""
    split = written(folder, "stream", flags.FLAGS.tokens, flags.FLAGS.seed)
    stream = split["x"].values
    child = subprocess.run(
        [sys.executable, "-c", _EPOCH, folder, str(flags.FLAGS.batch)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode:
        last = child.stderr.strip().rpartition("\n")[2]
        raise OSError(f"reading a stream ended with exit code {child.returncode}: {last}")
    line = {
        "benchmark": "data_feed",
        "feed": "resident",
        "batch": flags.FLAGS.batch,
        "steps": _STEPS,
    }
    return {**line, "stream_bytes": stream.nbytes, **json.loads(child.stdout)}


def epoch_of(folder: str, batch: str) -> None:
    """Reads an epoch on to the device and prints what it took, as JSON."""
    import jax
    import numpy as np

    from data import storage
    from data.prefetch import prefetch

    make, epoch = batches("stream", storage.read(Path(folder), "train"), int(batch), 0)
    start, total = time.perf_counter(), 0
    for one in prefetch(lambda step: jax.device_put(make(step)), range(epoch)):
        total += int(np.asarray(one["x"]).sum(dtype=np.int64))
    seconds = time.perf_counter() - start
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak, anonymous = (1024 * int(status[name].split()[0]) for name in ("VmHWM", "RssAnon"))
    found = {"seconds": seconds, "peak_bytes": peak, "anonymous_bytes": anonymous, "sum": total}
    print(json.dumps(found))


def main() -> None:
    """Measures the feeds that the flags ask for."""
    feeds = flags.FLAGS.feeds
    if not feeds or not set(feeds) <= set(FEEDS):
        raise ValueError(f"--feeds must list some of {', '.join(FEEDS)}, got {','.join(feeds)!r}")
    if "resident" in feeds and not Path("/proc/self/status").exists():
        raise ValueError("--feeds=resident reads /proc, which this system has not")
    from benchmarks import records

    with ExitStack() as stack:
        output = sys.stdout
        if flags.FLAGS.output is not None:
            output = stack.enter_context(open(flags.FLAGS.output, "a", encoding="utf-8"))
        facts = records.machine(memory_kept=False)
        for feed in feeds:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder) / "split"
                line = resident(place) if feed == "resident" else measure(feed, place)
            output.write(records.dump({**line, **facts}))
            output.flush()
            print(_summary(line), file=sys.stderr)


def _summary(line: dict) -> str:
    if line["feed"] == "resident":
        mega = [line[name] / 1e6 for name in ("stream_bytes", "peak_bytes", "anonymous_bytes")]
        return (
            f"resident: {mega[0]:,.0f} MB on the disk, at most {mega[1]:,.0f} MB in memory, "
            f"{mega[2]:,.0f} MB of them no pages of the file"
        )
    words = f"{line['feed']}: {line['examples_per_second']:,.0f} examples a second"
    if "ratio" in line:
        words += (
            f", {line['ratio']:,.1f} times the {line['consumed_per_second']:,.0f} that a training "
            f"step of {line['features']} neurons ({line['consumer']}, 5 % open) uses up"
        )
    return words


if __name__ == "__main__":
    define()
    cli.run(main)
