"""Benchmarks as commands: flags, files, errors, help."""

import json

import jax
import pytest
from benchmark_case import python, record
from tiers import full, tiered

from benchmarks import records


@pytest.mark.full
def test_a_small_run_from_flags_to_records_and_plot(tmp_path):
    output, png = tmp_path / "a.jsonl", tmp_path / "a.png"
    output.write_text(records.dump(record()))  # of an earlier run, which stays
    done = python(
        "-m", "benchmarks.skip_scan", "--features=8", "--batch=8", "--steps=24", "--inputs=3",
        "--rates=0.25", "--rounds=2", "--schedules=neuron", "--switches=learned,share",
        "--backends=masked", f"--output={output}", f"--plot={png}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    first, *lines = records.read(output)
    assert first == record()
    assert [(r["switch"], r["backend"]) for r in lines] == [
        ("learned", "masked lax.scan"),
        ("learned", "masked"),
        ("share", "masked"),
        ("none", "flax.linen.RNN"),
    ]
    for line in lines:
        assert line["milliseconds"] >= line["spread"][0] > 0
        assert line["rate"] <= line["computed"] <= 1
        assert line["cpu"]
        assert line["versions"]["jax"] == jax.__version__
    assert 0 < lines[1]["difference"] < 1e-4
    assert lines[0]["computed"] > lines[2]["computed"] > lines[2]["rate"]
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert "learned" in done.stderr
    printed = python("-m", "benchmarks.targets", str(output))
    assert printed.stdout.count("| yes |") == 1, printed.stderr
    assert "Measured on A Fast One, 2 threads, kernel avx2, jax 0.10.2" in printed.stdout


@pytest.mark.full
def test_feeds_are_compared_with_a_consumer_and_memory_is_counted(tmp_path):
    output = tmp_path / "feed.jsonl"
    done = python(
        "-m", "benchmarks.data_feed", "--feeds=stream,resident", "--examples=40", "--batch=8",
        "--rounds=2", "--features=4", "--tokens=1000000", f"--output={output}",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    line, resident = (json.loads(line) for line in output.read_text().splitlines())
    assert (line["feed"], line["steps"]) == ("stream", 150)
    assert line["milliseconds"] >= line["spread"][0] > 0
    assert line["examples_per_second"] == pytest.approx(8e3 / line["milliseconds"])
    assert line["ratio"] == pytest.approx(line["examples_per_second"] / line["consumed_per_second"])
    assert line["versions"]["jax"] == jax.__version__
    assert "examples a second" in done.stderr
    assert resident["feed"] == "resident"
    assert resident["stream_bytes"] == 4_000_000
    # All of the stream was read: ids are 0..267,734, and up to 8 · 150 tokens are left out.
    assert resident["sum"] == pytest.approx(1e6 * 133_867, rel=0.01)
    # JAX alone takes more than a tenth of that.
    assert 1e8 < resident["peak_bytes"] < 1e9
    assert resident["anonymous_bytes"] < resident["peak_bytes"]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["data_feed", "--feeds=listops,sound"], "--feeds must list some of listops, images"),
        full(["skip_scan", "--rates=0.1,1.5"], "--rates must be numbers above 0 and up to 1"),
        full(["skip_scan", "--features=64,x"], "--features must be whole numbers above 0"),
        (["skip_scan", "--backends=fast"], "--backends must list some of native, rows"),
        full(["skip_scan", "--schedules=0"], "group, event, a number of groups, got '0'"),
        (["skip_scan", "--switches=share"], "share is compared with learned"),
        (["minimal", "--plot=nowhere/a.png"], "nowhere/a.png: no such folder"),
        full(["targets", "nowhere.jsonl"], "nowhere.jsonl"),
        (["plot", "README.md", "--plot=a.png"], "README.md, line 1: not a record"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command, says):
    done = python("-m", "benchmarks." + command[0], *command[1:])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "name",
    tiered(
        ["skip_scan", "dense_scan", "minimal", "inference", "streaming", "memory"],
        ["skip_scan", "memory"],
    ),
)
def test_help_is_there_at_once(name):
    done = python("-X", "importtime", "-m", f"benchmarks.{name}", "--help")
    assert done.returncode == 0
    assert "--features: H, neurons" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "benchmarks.options" in imported
    assert not imported & {"jax", "flax", "torch", "matplotlib"}  # seconds each


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("data_feed", "--feeds: Of listops, images, stream, resident"),
        ("lengths", "--models: Of sugru, gru, attention, s4d"),
    ],
)
def test_help_of_what_races_no_scans_is_there_at_once(name, flag):
    done = python("-X", "importtime", "-m", f"benchmarks.{name}", "--help")
    assert done.returncode == 0
    assert flag in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "benchmarks.case" in imported
    assert not imported & {"jax", "flax", "matplotlib"}
