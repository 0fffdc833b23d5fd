"""Benchmarks: what is made of the records: tables, targets, plots."""

import pathlib

import pytest
from benchmark_case import TINY, record

from benchmarks import plot, records, targets, timing
from benchmarks.timing import Entrant


def test_speedup_is_the_median_of_the_rounds_ratios():
    base, variant = [10.0, 40.0, 300.0], [5.0, 10.0, 300.0]
    assert timing.speedup(base, variant) == 2.0  # of 2, 4, 1; the ratio of the medians is 4
    assert timing.milliseconds(base) == 40.0
    assert timing.spread([1.0, 2.0, 3.0, 4.0, 10.0]) == [1.0, 2.0, 4.0]


def test_a_race_becomes_one_record_for_each_baseline():
    facts = {"schedule": "neuron", "rate": 0.1, "computed": 0.1, "asked": 0.1}
    frozen, learned = {**facts, "switch": "frozen"}, {**facts, "switch": "learned"}
    entrants = {
        "frozen/base": Entrant("base", None, frozen),
        "other": Entrant("other", None, frozen),
        "frozen/native": Entrant("native", None, frozen, ("frozen/base", "other")),
        "learned/native": Entrant("native", None, learned, ("frozen/base",)),
    }
    times = {
        "frozen/base": [8.0, 8.0, 8.0],
        "other": [4.0, 4.0, 4.0],
        "frozen/native": [2.0, 2.0, 2.0],
        "learned/native": [2.5, 2.5, 2.5],
    }
    differences = {**dict.fromkeys(times, 0.0), "learned/native": 1e-6}
    lines = records.timed("skip_scan", TINY, entrants, times, differences)
    brief = [(r["switch"], r["backend"], r["baseline"], r["speedup"]) for r in lines]
    assert brief == [
        ("frozen", "base", "base", 1.0),
        ("frozen", "other", "other", 1.0),
        ("frozen", "native", "base", 4.0),
        ("frozen", "native", "other", 2.0),
        ("learned", "native", "base", 3.2),
    ]
    assert [r.get("of_frozen") for r in lines] == [None] * 4 + [0.8]
    assert lines[-1] == {
        **learned,
        **{"benchmark": "skip_scan", "backend": "native", "baseline": "base", "speedup": 3.2},
        **{"features": 8, "batch": 8, "steps": 24, "inputs": 3, "rounds": 3, "of_frozen": 0.8},
        **{"milliseconds": 2.5, "spread": [2.5, 2.5, 2.5], "difference": 1e-6},
    }


def test_records_survive_a_file_and_damage_is_named(tmp_path):
    path = tmp_path / "bench.jsonl"
    lines = [record(), record(backend="rows", speedup=2.0)]
    path.write_text("".join(map(records.dump, lines)))
    assert records.read(path) == lines
    path.write_text(records.dump(record(benchmark="held")))
    assert records.read(path)[0]["benchmark"] == "minimal"  # what it was called once
    path.write_text("".join(map(records.dump, lines)))
    with path.open("a") as file:
        file.write('{"benchmark": "skip_sc')
    with pytest.raises(ValueError, match=r"bench\.jsonl, line 3: not a record"):
        records.read(path)
    path.write_text('{"benchmark": "skip_scan", "backend": "native"}')
    with pytest.raises(ValueError, match=r"bench\.jsonl, line 1: not a record.*lacks schedule"):
        records.read(path)
    path.write_text("")
    with pytest.raises(ValueError, match="holds no record"):
        records.read(path)
    with pytest.raises(ValueError, match="JSON compliant"):
        records.dump(record(speedup=float("nan")))


def test_the_table_leaves_out_what_says_nothing():
    head, first, second = records.table([record(), record(speedup=1.5, of_frozen=0.875)]).split(
        "\n"
    )
    columns = "backend schedule switch rate computed H B T D ms min–q1–q3 baseline faster of frozen"
    assert " ".join(head.split()) == columns
    assert first.split()[-2:] == ["10.00×", "–"]
    assert second.split()[-2:] == ["1.50×", "0.88"]


def test_the_targets_take_the_last_run_of_the_best_back_end():
    lines = [
        record(speedup=20.0),
        record(speedup=9.75),
        record(asked=0.05, speedup=11.9),
        record(asked=0.25, speedup=6.0, rate=0.25, computed=0.25),
        record(features=128, asked=0.25, speedup=99.0),
        record(asked=0.05, backend="rows", speedup=4.0),
        record(asked=0.05, backend="compact", speedup=3.0),
        record(switch="share", of_frozen=0.9, computed=0.12, speedup=9.0),
        record(benchmark="memory", saving=6.5, reads="outputs", chunk=None, backend="native"),
        record(benchmark="memory", saving=9.5, reads="last", chunk=None, backend="native"),
    ]
    rows = targets.table(lines).split("\n")[2:]
    assert len(rows) == len(targets.TARGETS) == 22
    cells = [row.strip("| ").split(" | ") for row in rows]
    found = {(c[0], c[1]): c[2:] for c in cells}
    masked = "masked lax.scan"
    assert found["10%, per neuron, native, frozen", masked] == [
        "9.50×", "12.00×", "9.75×", "native", "yes",
    ]  # fmt: skip
    assert found["5%, per neuron, native, frozen", masked][-1] == "no"
    assert found["25%, per neuron, native, frozen", masked][2:] == [
        "6.00×",
        "native",
        "yes, the aim",
    ]
    assert found["5%, per neuron, pure JAX", masked][2:] == ["4.00×", "rows", "yes"]
    few = found["10%, per neuron, native, learned from 1/8 of the batch", "the same frozen"]
    assert few == ["0.85×", "0.95×", "0.90×", "native, computes 12.0%", "yes"]
    assert found["bytes kept for the backward pass, 10%, per neuron", masked][2] == "6.50×"
    assert sum(c[-1] == "not measured" for c in cells) == 16


def test_the_table_in_the_readme_is_that_of_the_committed_records():
    readme = pathlib.Path(targets.__file__).with_name("README.md")
    found = records.read(str(readme.parent / "results" / "two_cores.jsonl"))
    assert targets.table(found) in readme.read_text()


def test_every_target_can_be_met_by_a_record():
    for target in targets.TARGETS:
        one = {k: v[0] if isinstance(v, tuple) else v for k, v in target.wanted.items()}
        assert targets.best(target, [{**one, target.measure: 1.0}]) is not None
        assert target.least < target.aim


def test_a_plot_draws_the_medians_by_back_end(tmp_path):
    lines = []
    for asked, base, native in ((0.05, 90.0, 8.0), (0.25, 100.0, 24.0), (1.0, 110.0, 100.0)):
        at = {"asked": asked, "rate": asked, "computed": asked}
        for switch in ("frozen", "learned"):
            base_line = record(backend="masked lax.scan", milliseconds=base, **at, switch=switch)
            lines += [base_line, record(milliseconds=native, **at, switch=switch)]
        lines.append(record(milliseconds=native + 1, **at, switch="share"))
        lines.append(
            record(backend="flax.linen.RNN", baseline="flax.linen.RNN", milliseconds=95.0,
                   schedule="none", switch="none")
        )  # fmt: skip
    path = tmp_path / "time.png"
    drawn = plot.draw(lines, path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [axis.get_title("left").split("\n")[0] for axis in drawn.axes] == [
        "neuron, frozen",
        "neuron, learned",
    ]
    frozen, learned = ({line.get_label(): line for line in axis.lines} for axis in drawn.axes)
    assert frozen["native"].get_ydata().tolist() == [8.0, 24.0, 100.0]
    assert frozen["native"].get_xdata().tolist() == [5.0, 25.0, 100.0]
    assert frozen["ideal"].get_ydata().tolist() == pytest.approx([5.5, 27.5, 110.0])
    assert frozen["flax.linen.RNN, no switch"].get_ydata() == [95.0, 95.0]
    assert learned["native"].get_ydata().tolist() == [8.0, 24.0, 100.0]
    assert learned["native, 1/8 teach"].get_ydata().tolist() == [9.0, 25.0, 101.0]
    assert "native, 1/8 teach" not in frozen
    base = {"backend": "native, no switch", "baseline": "native, no switch", "milliseconds": 50.0}
    lines = [record(**base, schedule="none", switch="none", rate=1.0), record(milliseconds=6.0)]
    (axis,) = plot.draw([{**r, "benchmark": "inference"} for r in lines], path).axes
    across = {line.get_label(): line.get_ydata() for line in axis.lines}
    assert across["native, no switch"] == [50.0, 50.0]
    assert across["ideal"] == pytest.approx([5.05])
    with pytest.raises(ValueError, match="got memory"):
        plot.draw([record(benchmark="memory")], path)


def test_the_ideal_is_the_rate_even_where_no_record_is_dense(tmp_path):
    at = {"rate": 0.25, "asked": 0.25}
    lines = [record(backend="masked lax.scan", milliseconds=100.0, **at), record(**at)]
    (axis,) = plot.draw(lines, tmp_path / "ideal.png").axes
    (ideal,) = [line for line in axis.lines if line.get_label() == "ideal"]
    assert ideal.get_ydata().tolist() == pytest.approx([25.0])


def test_a_sweep_over_lengths_is_drawn_against_them(tmp_path):
    lines = [
        record(backend=name, steps=steps, milliseconds=ms * steps)
        for steps in (1024, 4096)
        for name, ms in (("masked lax.scan", 0.4), ("native", 0.04))
    ]
    (axis,) = plot.draw(lines, tmp_path / "steps.png", "steps").axes
    (native,) = [line for line in axis.lines if line.get_label() == "native"]
    assert native.get_xdata().tolist() == [1024, 4096]
    assert native.get_ydata().tolist() == pytest.approx([40.96, 163.84])
    assert not [line for line in axis.lines if line.get_label() == "ideal"]
