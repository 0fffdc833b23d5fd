"""Totals, and files that are whole at every moment."""

import json

import numpy as np
import pytest

from surnn_jax.train import files


def test_means_weigh_batches_of_unequal_size():
    totals = {}
    for values in ([1.0, 2.0, 3.0], [10.0]):
        pair = (np.float32(sum(values)), np.float32(len(values)))
        totals = files.add(totals, {"nll": pair})
    assert files.means(totals, "valid/") == {"valid/nll": 4.0}


def test_totals_survive_json_and_a_small_addend():
    # In float32 the second addend would be lost.
    totals = files.add({}, {"nll": (np.float32(2**24), np.float32(1))})
    totals = files.add(json.loads(json.dumps(totals)), {"nll": (np.float32(1), np.float32(0))})
    assert totals == {"nll": (2.0**24 + 1, 1.0)}


def test_a_mean_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="metric train/x: the weights sum to 0"):
        files.means({"x": (0.0, 0.0)}, "train/")
    with pytest.raises(FloatingPointError, match="metric train/x is inf"):
        files.means({"x": (float("inf"), 1.0)}, "train/")


def test_lines_are_read_back_and_a_cut_last_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    records = [{"epoch": 1, "x": 0.1}, {"epoch": 2, "x": 1 / 3}]
    files.write_lines(path, records[:1])
    files.append_line(path, records[1])
    whole = path.read_text()
    assert files.read_lines(path) == records
    for cut in range(1, len(whole.splitlines()[1]) + 2):
        path.write_text(whole[:-cut])
        assert files.read_lines(path) == records[:1]


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch"\n{"epoch": 3}\n')
    with pytest.raises(ValueError, match="line 2: not JSON") as caught:
        files.read_lines(path)
    assert str(path) in str(caught.value)


def test_a_number_that_is_not_finite_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    files.write_json(path, {"nll": 8.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"nll": float("nan")})
    assert json.loads(path.read_text()) == {"nll": 8.5}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
