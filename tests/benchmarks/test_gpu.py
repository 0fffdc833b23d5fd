"""What is counted in programs for absent GPUs, and the command for the first minutes on one."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import first_gpu, gpu_check
from benchmarks.gpu import images, launches, programs, summary
from surnn_jax.scan.cuda import library

# A kernel; a loop of 512 turns; one of unknown turns with a loop and a branch within.
SEQUENCE = """
000: kCommandBuffer [source       | next=004 (1)]
    001: kCustomKernel [source | next=002 (1)] loop_add grid: [1, 1, 1] threads: [4, 1, 1]
    002: kCopy         [source | sink] kCopy
004: kWhile        [prev=003 (1) | next=018 (1)]
condition:
    005: kCustomKernel [source | sink] compare grid: [1, 1, 1] threads: [1, 1, 1]
  body:
    000: kCommandBuffer [source | sink]
        006: kAsyncStart   [source | next=011 (3)] stream=computation_stream[0], async_id=6
            008: kDynamicSliceFusion [source | sink] params=1, results=1
                007: kCopy [source | sink] kCopy
        009: kCustomKernel [source | next=012 (3)] gemm grid: [1536, 1, 1] threads: [64, 1, 1]
        010: kAsyncDone    [source | sink        ] async_id=6
020: kWhile        [prev=004 (1) | next=000 (1)]
condition:
    021: kCustomKernel [source | sink] compare grid: [1, 1, 1] threads: [1, 1, 1]
  body:
    022: kCustomKernel [source | sink] slice grid: [1, 1, 1] threads: [1, 1, 1]
    023: kWhile        [prev=022 (1) | next=000 (1)]
condition:
        024: kCustomKernel [source | sink] compare grid: [1, 1, 1] threads: [1, 1, 1]
      body:
        025: kCustomKernel [source | sink] add grid: [1, 1, 1] threads: [1, 1, 1]
    030: kConditional  [prev=023 (1) | next=000 (1)]
      false_branch:
        031: kCustomKernel [source | sink] a grid: [1, 1, 1] threads: [1, 1, 1]
        032: kGemm         [source | sink] b
      true_branch:
        033: kCopy         [source | sink] kCopy
040: kCustomKernel [prev=020 (1) | sink] reduce grid: [1, 1, 1] threads: [1, 1, 1]
"""
NAMES = """
thunk_metadata {
  thunk_info {
    profile_annotation: "while.6"
    thunk_id: 4
  }
}
thunk_metadata {
  thunk_info {
    profile_annotation: "while.7"
    thunk_id: 20
  }
}
"""
HLO = """
  %while.6 = (s32[]) while(%tuple), body=%b, backend_config={"known_trip_count":{"n":"512"}}
  %while.7 = (s32[]) while(%tuple), condition=%c, body=%d
"""


def test_launches_are_counted_by_loop():
    found = launches.count(SEQUENCE, NAMES, HLO)
    assert (found.turns, found.kernels, found.copies, found.syncs) == (1, 2, 1, 0)
    known, unknown = found.inner
    assert known == launches.Loop(512, 1, 1, 0)  # its condition does not run
    # The condition and the slice; the dearer branch; the host waits for the turn and the branch.
    inner = launches.Loop(None, 2, 0, 1)
    assert unknown == launches.Loop(None, 2 + 2, 0, 2, (inner,))
    assert list(found.loops()) == [known, unknown, inner]


def test_what_is_worse_than_the_table():
    row = {"launches_per_step": 2.6, "open_loops": [[8, 1]], "once": 9, "syncs": 1,
           "megabytes": 347, "registers": 38, "spills": 0}  # fmt: skip
    assert gpu_check.worse(row, row) == []
    assert gpu_check.worse({**row, "registers": 30, "megabytes": 349}, row) == []
    for change in (
        {"launches_per_step": 2.7},
        {"syncs": 2},
        {"megabytes": 360},
        {"spills": 8},
        {"open_loops": [[9, 1]]},
    ):
        assert len(gpu_check.worse({**row, **change}, row)) == 1, change


def test_the_table_keeps_what_was_reached():
    """Launches of a step of the dense scan, at most 3 forward and 5 backward; no waits."""
    table = json.loads(gpu_check.TABLE.read_text(encoding="utf-8"))["programs"]
    forward = table["h200: masked: gru, neuron, forward"]
    both = table["h200: masked: gru, neuron"]
    assert forward["launches_per_step"] <= 3
    assert both["launches_per_step"] - forward["launches_per_step"] <= 5
    assert not forward["syncs"]
    assert not both["syncs"]
    compact = [row for name, row in table.items() if "compact: gru, group" in name]
    assert compact
    for row in compact:  # one wait a turn of eight steps, and no loop within a loop
        assert [syncs for _, syncs in row["open_loops"]] == [1, 1]
    kernel = [row for name, row in table.items() if "cuda: gru" in name]
    assert kernel
    for row in kernel:  # a call takes hundreds of steps; `masked` in its place would launch 7 each
        assert row["launches_per_step"] < 0.2
        assert row["open_loops"] == []
    for switch in ("neuron", "event"):  # and it takes less memory
        ours, dense = (table[f"h200: {name}: gru, {switch}"] for name in ("cuda", "masked"))
        assert ours["megabytes"] < 0.7 * dense["megabytes"]


def test_full_presets_fit_into_24_gigabytes():
    """Those of the table; `gpu_check --presets=all --missing --write` adds new ones."""
    table = json.loads(gpu_check.TABLE.read_text(encoding="utf-8"))["programs"]
    rows = {name: row for name, row in table.items() if name.startswith("rtx4090: ")}
    assert len(rows) >= 358
    known = {
        f"rtx4090: {programs.preset_program(*pair).name}" for pair in programs.full_presets([])
    }
    assert rows.keys() <= known, "presets that are gone"
    assert max(row["megabytes"] for row in rows.values()) < 0.9 * 24_000


def test_the_cuda_kernel_is_compiled_only_where_it_is_built():
    """`masked` would answer under its name."""
    names = [program.name for program in programs.layer_programs()]
    assert any(name.startswith("masked: ") for name in names)
    assert any(name.startswith("cuda: ") for name in names) == library.available()


@pytest.mark.full
def test_a_part_that_fails_or_hangs_takes_no_other_down(tmp_path):
    plain = first_gpu.environment(tmp_path, rehearse=True)
    (tmp_path / "dies.py").write_text("raise SystemExit(3)")
    (tmp_path / "hangs.py").write_text("import time\nprint('on', flush=True)\ntime.sleep(60)")
    plain["PYTHONPATH"] += f":{tmp_path}"
    part = first_gpu.Part("one", ("dies",), 20)
    assert first_gpu.run(part, tmp_path, plain, 20)[0] == "failed with status 3"
    slow = first_gpu.Part("two", ("hangs",), 1)
    assert first_gpu.run(slow, tmp_path, plain, 1)[0] == "stopped: its time was up"
    training = dataclasses.replace(slow, stops=True)
    assert first_gpu.run(training, tmp_path, plain, 1)[0] == "done"
    assert (tmp_path / "two.log").read_text() == "on\n"


def test_all_parts_together_stay_under_eight_minutes(tmp_path):
    """Even if each takes all that it may."""
    elapsed = 0.0
    for part in first_gpu.parts(tmp_path, rehearse=False):
        limit = first_gpu.allowed(part, elapsed, training=True)
        assert limit > 5
        elapsed += limit
    assert elapsed <= first_gpu.SECONDS < 8 * 60
    assert part.stops
    assert limit >= first_gpu.TRAINING


def test_the_command_imports_nothing_that_may_be_missing():
    code = "import sys, benchmarks.first_gpu; print(*(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jax", "numpy", "absl", "tqdm", "flax"} & set(done.stdout.split())


def test_a_summary_of_what_there_is(tmp_path):
    def line(backend, ms, schedule="neuron", asked=0.1):
        return {"backend": backend, "milliseconds": ms, "schedule": schedule, "asked": asked,
                "features": 256, "batch": 64, "steps": 4096, "cell": "gru"}  # fmt: skip

    records = [line("lax.scan", 300.0), line("masked", 60.0), line("cuda", 15.0)]
    text = "".join(json.dumps(r) + "\n" for r in records)
    (tmp_path / "records.jsonl").write_text(text + '{"cut off')
    found = summary.write(tmp_path, [{"part": "times", "state": "done", "seconds": 1.0}])
    assert re.search(r"per neuron 10 %, the same \| lax.scan \| 8× \| 20× \| 20.00× \| cuda", found)
    assert "events 10 %, the same | lax.scan | 8× | 20× | not measured" in found
    assert (tmp_path / "summary.md").read_text() == found + "\n"


def test_made_images_are_digits_of_every_kind():
    x, y = images.draw(200)
    assert x.shape == (200, 784)
    assert x.dtype == np.uint8
    assert set(y) == set(range(10))
    # An eight has all seven segments, a one has two.
    assert x[y == 8].mean() > 1.5 * x[y == 1].mean()
    np.testing.assert_array_equal(images.draw(200)[0], x)


@pytest.mark.parametrize("name", ["a100", "h100", "h200", "b200", "rtx4090"])
def test_every_device_says_its_memory(name):
    text = (gpu_check.Path(gpu_check.__file__).parent / "gpu/devices" / f"{name}.txtpb").read_text()
    assert int(re.search(r"device_memory_size: (\d+)", text)[1]) > 24e9
