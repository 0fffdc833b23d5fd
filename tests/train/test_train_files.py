"""Totals, and files that are whole at every moment."""

import hashlib
import json

import numpy as np
import pytest

from surnn_jax.train import files
from surnn_jax.train.evaluation import add, means


def test_means_weigh_batches_of_unequal_size():
    totals = {}
    for values in ([1.0, 2.0, 3.0], [10.0]):
        pair = (np.float32(sum(values)), np.float32(len(values)))
        totals = add(totals, {"nll": pair})
    assert means(totals, "valid/") == {"valid/nll": 4.0}


def test_totals_survive_json_and_a_small_addend():
    # In float32 the second addend would be lost.
    totals = add({}, {"nll": (np.float32(2**24), np.float32(1))})
    totals = add(json.loads(json.dumps(totals)), {"nll": (np.float32(1), np.float32(0))})
    assert totals == {"nll": (2.0**24 + 1, 1.0)}


def test_a_mean_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="metric train/x: the weights sum to 0"):
        means({"x": (0.0, 0.0)}, "train/")
    with pytest.raises(FloatingPointError, match="metric train/x is inf"):
        means({"x": (float("inf"), 1.0)}, "train/")


RECORDS = [{"epoch": 1, "x": 0.1}, {"epoch": 2, "x": 1 / 3}]


def written(path, records=RECORDS):
    log = files.JsonLog(path)
    for record in records:
        log.append(record)
    return log


def test_lines_are_read_back_and_a_cut_last_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path)
    whole = path.read_text()
    assert files.read_lines(path) == RECORDS
    for cut in range(1, len(whole.splitlines()[1]) + 2):
        path.write_text(whole[:-cut])
        assert files.read_lines(path) == RECORDS[:1]


def test_a_log_goes_back_to_its_mark_and_on_with_the_same_bytes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    mark = written(path, RECORDS[:1]).mark()
    assert mark["bytes"] == path.stat().st_size
    assert mark["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    for record in RECORDS[1:]:
        files.JsonLog(path).append(record)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])  # A line that a kill cut short, after the mark.

    log = files.JsonLog(path)
    log.read(mark)
    assert path.read_bytes() == whole[:-3]  # Reading changes nothing.
    log.cut()
    log.append(RECORDS[1])
    assert log.records == RECORDS
    assert path.read_bytes() == whole
    assert log.mark() == written(tmp_path / "other").mark()


@pytest.mark.parametrize("harm", ["flipped", "shortened", "deleted"])
def test_promise_7_a_damaged_log_is_named_and_put_aside(tmp_path, harm):
    path = tmp_path / "metrics.jsonl"
    mark, whole = written(path).mark(), path.read_bytes()
    path.write_bytes({"flipped": whole.replace(b"1", b"7", 1)}.get(harm, whole[:-1]))
    if harm == "deleted":
        path.unlink()
    log = files.JsonLog(path)
    with pytest.raises(ValueError, match="is damaged") as caught:
        log.read(mark)
    assert str(path) in str(caught.value)
    assert log.records == []
    log.cut()
    assert path.read_bytes() == b""
    assert path.with_name("metrics.jsonl.damaged").exists() == (harm != "deleted")


def test_a_process_that_does_not_write_only_keeps_the_records(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = files.JsonLog(path, writes=False)
    log.append(RECORDS[0])
    log.cut()
    assert log.records == RECORDS[:1]
    assert not path.exists()


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


def test_a_text_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    files.write_text(path, "old\n")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "new \ud800\n")
    assert path.read_text() == "old\n"
