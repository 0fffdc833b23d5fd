"""The tables of searches."""

import pytest

from experiments.report import collect, searches, significance, suites
from experiments.runner import records
from experiments.tuning import protocols
from experiments.tuning.protocols import Group, SearchSpace


def won(unit: str, seed: int, test: float, **changes) -> records.Record:
    found = {"protocol": "chung", "budget": 10, "seed": 0, "dataset": "jsb", "unit": unit}
    found |= {"draw": 3, "diverged": 1, "seconds": 50.0, **changes.pop("search", {})}
    config = SearchSpace("music", found["protocol"], found["budget"], 0, {}).config(
        Group("jsb", unit, seed)
    )
    return records.Record(
        experiment="music",
        dataset="jsb",
        cell=config.cell,
        switch=config.switch_name,
        seed=seed,
        parameters=22_000,
        recurrent_parameters=18_630,
        update_rate=1.0,
        metrics={"train_nll": 7.0, "valid_nll": test - 0.125, "test_nll": test},
        best_epoch=3,
        steps=100,
        seconds=5.0,
        config={**vars(config), "learning_rate": seed / 100 + 0.001},
        search=found,
        versions={"jax": "0.10.2"},
        command="python -m experiments.search",
    )._replace(**changes)


def test_the_table_has_both_protocols_and_what_was_published(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "RESULTS", tmp_path / "results")
    found = [won("gru", seed, 8.5 + seed / 8) for seed in range(3)]
    found += [won("tanh", 0, 9.5, best_epoch=380), won("tanh", 1, 9.625, best_epoch=381)]
    found += [won("tanh", 2, 9.75, best_epoch=400)]
    found += [won("gru", 0, 8.25, search={"protocol": "controlled", "budget": 4, "diverged": 0})]
    for number, record in enumerate(found):
        (tmp_path / str(number)).mkdir()
        records.write(record, tmp_path / str(number))
    text = searches.markdown(suites.CHUNG, collect.collect("chung", tmp_path))
    chung, controlled = text.split("## ")[1:]
    assert chung.startswith("Protocol chung: budget 10\n\n**JSB Chorales** (`jsb`; nats a frame)")
    quoted = "8.54 (verified: Chung et al. 2014, table 2)"
    assert (
        f"| GRU | {quoted} | 8.62 ± 0.12 | 8.50 ± 0.12 | 7.00 ± 0.00 | 18,630 | 100.0 | 50 "
        "| 3 of 30 | 0 | 3 |" in chung
    )
    # By patience an epoch is the last where the best lies 20 epochs before: of 400, the 380th.
    assert "| 3 of 30 | 2 | 3 |" in chung
    assert (
        "| LSTM | 8.67 (second-hand: Chung et al. 2014, table 2, in 2j2h5/lstm-gru) | – |" in chung
    )
    assert "- GRU beats tanh: yes, on 1 of 1 data sets, difference 1.00 [1.00, 1.00]" in chung
    assert controlled.startswith("Protocol controlled: budget 4\n")
    row = f"| GRU | {quoted} | 8.25 | 8.12 | 7.00 | 18,630 | 100.0 | 50 | 0 of 4 | 0 | 1 |"
    assert row in text
    # Searches stand in no other suite.
    assert collect.collect("music", tmp_path) == []


def test_two_winners_of_a_group_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "RESULTS", tmp_path / "results")
    for name, test in (("a", 8.5), ("b", 8.25)):
        (tmp_path / name).mkdir()
        record = won("gru", 0, test)
        # They may differ in what was found, but not in what was searched.
        config = {**record.config, "learning_rate": test / 100}
        records.write(record._replace(config=config), tmp_path / name)
    with pytest.raises(ValueError, match="the same configuration and seed, but different metrics"):
        collect.collect("chung", tmp_path)


def test_speech_is_quoted_nowhere_and_the_margin_is_named():
    assert {dataset for dataset, _, _ in suites.CHUNG.published} == {"jsb"}
    assert f"under {significance.MARGIN} nats" in suites.CHUNG.notes


def test_every_searched_unit_has_a_row():
    rows = {(unit["cell"], unit.get("switch", "none")) for unit in protocols.UNITS.values()}
    assert rows == set(suites.CHUNG.units)
