"""The benchmark of the parts of a step: a small run, and that they add up."""

import json

import pytest
from benchmark_case import python

from benchmarks import parts


def test_the_parts_add_up_to_the_step():
    took = dict(zip(parts.TIMES, (1, 2, 3, 5, 7, 17, 4, 6, 8, 100), strict=True))
    lines = parts.shares([{"milliseconds": ms, "backend": "native"} for ms in took.values()])
    found = {line["part"]: line["milliseconds"] for line in lines}
    # Twice a layer of 17, of which 7 forward; the table takes 3 and 5 of these.
    assert found["table"] + found["scan, forward"] + found["scan, backward"] == 34
    assert found["scan, forward"] == 2 * (7 - 3)
    assert found["scan, backward"] == 2 * (17 - 7 - (5 - 3))
    assert found.pop("whole") == 100
    assert sum(found.values()) == pytest.approx(100)
    assert found["rest"] == 100 - 1 - 3 * 2 - 34 - 2 * 4 - 6 - 8


@pytest.mark.full
@pytest.mark.parametrize("schedule", ["neuron", "event"])
def test_a_small_run_has_a_line_for_every_part(tmp_path, schedule):
    output = tmp_path / "parts.jsonl"
    done = python(
        "-m", "benchmarks.parts", "--features=8", "--batch=2", "--steps=32", "--rounds=2",
        "--backends=masked", f"--schedules={schedule}", f"--output={output}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["part"] for line in lines][-2:] == ["rest", "whole"]
    assert sum(line["of_step"] for line in lines[:-1]) == pytest.approx(1)
    assert {line["schedule"] for line in lines} == {schedule}
