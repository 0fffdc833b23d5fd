"""Searches end to end by their command, on a tiny data set: whole, killed, refused, scored."""

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
from data_case import run
from tiers import full

from experiments.report import collect
from experiments.runner import records
from experiments.runner.experiment import scores
from experiments.tasks import registry
from experiments.tuning import journal, protocols
from experiments.tuning.journal import Trial, TrialLog
from experiments.tuning.protocols import Group, SearchSpace
from surnn_jax.train.files import lock_directory

CASE = Path(__file__).parents[1] / "support" / "search_case.py"
SMALL = ["--datasets=jsb", "--units=tanh", "--seeds=2", "--num_trials=3", "--max_epochs=2"]
SMALL += ["--features=5"]


def search(folder: Path, workdir: Path, *flags: str, program: str = "search", **variables: str):
    cache = {"SURNN_CACHE": folder / "cache"}
    where = [f"--workdir={workdir}"] if program == "search" else [f"--checkpoint={workdir}"]
    return run(CASE, program, folder, *flags, *where, PYTHONPATH=".:tests", **cache, **variables)


def trials(workdir: Path) -> list[dict]:
    """The journal's trials without what a clock decides."""
    _, *lines = (workdir / journal.FILE).read_text().splitlines()
    clock = ("seconds", "crc")
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    done = search(folder, folder / "whole", *SMALL, COUNT_PROGRAMS=folder / "programs")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_every_trial_is_in_the_journal_and_the_best_that_is_able_wins(whole):
    folder, done = whole
    found = trials(folder / "whole")
    assert [(t["seed"], t["draw"]) for t in found] == [(s, d) for s in range(2) for d in range(3)]
    assert {t["status"] for t in found} == {"ok", "behind", "diverged"}
    rates = [t["learning_rate"] for t in found]
    assert rates[:3] == rates[3:]
    for seed in range(2):
        able = [t for t in found if t["seed"] == seed and t["status"] != "diverged"]
        best = min(able, key=lambda t: t["valid_nll"])
        record = records.read(folder / "whole" / f"jsb-tanh-{seed}" / "result.json")
        assert record.search | {"seconds": 0.0} == {
            "protocol": "chung",
            "budget": 3,
            "seed": 0,
            "dataset": "jsb",
            "unit": "tanh",
            "draw": best["draw"],
            "diverged": 3 - len(able),
            "halvings": [1, 2],
            "seconds": 0.0,
        }
        assert record.config["learning_rate"] == best["learning_rate"]
        assert record.metrics["valid_nll"] == pytest.approx(best["valid_nll"], rel=1e-5)
        assert record.best_epoch == best["best_epoch"]
        assert f"test {record.metrics['test_nll']:.3f}" in done.stdout
    assert "## Protocol chung: budget 3, max_epochs 2, features 5" in done.stdout
    assert "| tanh | none | " in done.stdout


def test_what_stays_of_a_group_is_small_and_says_nothing_of_the_machine(whole):
    folder, _ = whole
    kept = [path for path in (folder / "whole").rglob("*") if path.is_file()]
    assert not [path for path in kept if "population" in path.parts]
    assert sum(path.stat().st_size for path in kept) < 100_000
    assert not [path for path in kept if str(folder).encode() in path.read_bytes()]


@pytest.mark.full
def test_evaluate_finds_the_same_figures(whole):
    folder, _ = whole
    done = search(folder, folder / "whole" / "jsb-tanh-1", program="evaluate")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("identical") == 3


@pytest.mark.full
def test_killed_anywhere_and_run_again_gives_the_same_numbers(whole, tmp_path):
    folder, _ = whole
    for moment in ("training", "journal"):
        killed = search(folder, tmp_path, *SMALL, "--seeds=1", DIE_AT=moment)
        assert killed.returncode == -signal.SIGKILL, (moment, killed.stderr)
    assert not (tmp_path / journal.FILE).read_bytes().endswith(b"\n")
    done = search(folder, tmp_path, *SMALL, "--seeds=1")
    assert done.returncode == 0, done.stderr
    assert trials(tmp_path) == [t for t in trials(folder / "whole") if t["seed"] == 0]
    ours, theirs = (
        records.read(home / "jsb-tanh-0" / "result.json") for home in (tmp_path, folder / "whole")
    )
    assert ours.metrics == theirs.metrics


@pytest.mark.full
def test_programs_of_one_unit_are_given_back_before_the_next(whole, tmp_path):
    several, count = [*SMALL, "--seeds=1", "--units=tanh,gru,lstm"], tmp_path / "programs"
    done = search(whole[0], tmp_path / "several", *several, COUNT_PROGRAMS=count)
    assert done.returncode == 0, done.stderr
    one = int((whole[0] / "programs").read_text())
    assert 0 < int(count.read_text()) < 1.2 * one


@pytest.mark.full
def test_another_space_is_refused_and_a_group_of_another_process_left_to_it(whole):
    folder, _ = whole
    before = (folder / "whole" / journal.FILE).read_bytes()
    done = search(folder, folder / "whole", *SMALL, "--budget=4")
    assert done.returncode == 2
    assert "is of a search with budget=3, not 4: give another workdir" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (folder / "whole" / journal.FILE).read_bytes() == before
    held = folder / "whole" / "jsb-gru-0"
    held.mkdir()
    with lock_directory(held):
        done = search(folder, folder / "whole", *SMALL, "--seeds=1", "--units=tanh,gru")
    assert done.returncode == 0, done.stderr
    assert "left to another process: jsb-gru-0; run again" in done.stdout
    assert (folder / "whole" / journal.FILE).read_bytes() == before


@pytest.mark.full
def test_a_winner_that_is_gone_is_missed(whole):
    folder, _ = whole
    record = folder / "whole" / "jsb-tanh-0" / "result.json"
    content = record.read_bytes()
    record.unlink()
    done = search(folder, folder / "whole", *SMALL)
    record.write_bytes(content)
    assert done.returncode == 2
    assert "jsb-tanh-0/result.json is missing, though journal.jsonl has the group" in done.stderr


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--units=tanh,gur", "unknown unit 'gur'; one of: tanh, gru, lstm, sugru"),
        ("--seeds=0", "seeds must be at least 1, got 0"),
        full("--data_dir=/no/such", "/no/such: no such folder"),
        ("--max_epoch=3", "max_epoch"),
    ],
)
def test_bad_flags_end_in_one_line(flag, words, tmp_path):
    done = run("-m", "experiments.search", f"--workdir={tmp_path / 'never'}", flag)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"experiment": "musik"}, "unknown experiment 'musik'; one of: music, speech"),
        ({"protocol": "chang"}, "unknown protocol 'chang'; one of: chung, controlled"),
        ({"budget": 0}, "num_trials must be at least 1, got 0"),
        ({"changes": {"windows": 3}}, "windows: music has no such setting"),
    ],
)
def test_a_bad_space_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        space(**changes)


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="unknown dataset 'jbs'; one of: jsb, nottingham"):
        space().config(Group("jbs", "gru", 0))


def test_list_names_what_there_is():
    done = run("-m", "experiments.search", "--list", "--experiment=speech")
    assert done.returncode == 0
    assert "\nasterisk_speech-8000 " in done.stdout
    assert "\ndraw 9: learning_rate=" in done.stdout
    code = "import sys; from experiments import search; print({'jax', 'flax'} & set(sys.modules))"
    assert run("-c", code).stdout == "set()\n"


def space(**changes) -> SearchSpace:
    fields = {"experiment": "music", "protocol": "chung", "budget": 3, "seed": 0, "changes": {}}
    return SearchSpace(**{**fields, **changes})


def test_draws_are_log_uniform_and_a_function_of_their_number():
    import scipy.stats  # a second, of every worker that collects

    # Section 4.2 of the paper: e to the power of a uniform draw from -12..-6.
    exponents = [math.log(draw["learning_rate"]) for draw in space(budget=2000).draws]
    assert scipy.stats.kstest(exponents, scipy.stats.uniform(-12, 6).cdf).pvalue > 0.01
    controlled = space(protocol="controlled", budget=2000).draws
    for name, least, most in (("learning_rate", 3e-4, 3e-2), ("weight_decay", 1e-3, 1.0)):
        logs = np.log([draw[name] for draw in controlled])
        inside = scipy.stats.uniform(math.log(least), math.log(most / least))
        assert scipy.stats.kstest(logs, inside.cdf).pvalue > 0.01
    assert space(budget=2).draws == space(budget=3).draws[:2]
    assert space(seed=1).draws[0] != space().draws[0]


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
@pytest.mark.parametrize("experiment", protocols.CONFIGS)
def test_all_units_are_treated_alike(protocol, experiment):
    searched = space(protocol=protocol, experiment=experiment)
    for dataset in protocols.DATASETS[experiment]:
        plans = []
        for unit in protocols.UNITS:
            plan = vars(searched.config(Group(dataset, unit, 1))).copy()
            assert plan.pop("seed") == 1
            for own in ("cell", "switch", "rate"):
                del plan[own]
            plans.append(plan)
        assert plans[1:] == plans[:-1]


def test_draws_are_halved_until_one_is_left():
    assert space(budget=10).halvings("nottingham") == [6, 12, 24, 48]  # 10, 5, 3, 2, 1
    assert space(budget=1).halvings("jsb") == []
    assert space(experiment="speech", budget=4).halvings("fsdd") == [1, 2]
    assert space(experiment="speech", budget=4).halvings("asterisk_speech-8000") == [2, 4]


def trial(**changes) -> Trial:
    fields = {
        "dataset": "jsb",
        "unit": "gru",
        "seed": 0,
        "draw": 0,
        "learning_rate": 0.001,
        "weight_decay": 0.0,
        "status": "ok",
        "valid_nll": 8.5,
        "best_epoch": 3,
        "epochs": 5,
        "skipped": 0,
        "seconds": 10.0,
        "budget": 3,
    }
    return Trial(**{**fields, **changes})


def test_those_that_diverged_never_win():
    low = trial(draw=1, status="diverged", valid_nll=1.0)
    never = trial(draw=2, status="diverged", valid_nll=None)
    assert journal.winner([low, trial(), never, trial(draw=3, valid_nll=8.5)]) == trial()
    assert journal.winner([low, never]) is None
    # The leader may diverge after others were taken out.
    behind = trial(draw=4, status="behind", valid_nll=9.0)
    assert journal.winner([low, behind]) == behind


def test_time_left_goes_by_what_is_nearest():
    took = [trial(), trial(draw=1), trial(unit="tanh"), trial(dataset="musedata", seconds=90.0)]
    ahead = [Group("jsb", "gru", 1), Group("jsb", "lstm", 0), Group("piano_midi", "gru", 0)]
    # 20, then the mean of 20 and 10, then the mean of 20, 10 and 90.
    assert journal.time_left(took, ahead) == 20 + 15 + 40
    assert journal.time_left([], ahead) is None


def test_trials_come_back_and_a_line_cut_short_is_taken_off(tmp_path):
    book = TrialLog(tmp_path, space().header())
    book.append([trial(), trial(draw=1, status="diverged", valid_nll=None)])
    whole = book.path.read_bytes()
    book.path.write_bytes(whole[:-7])
    again = TrialLog(tmp_path, space().header())
    assert again.trials() == [trial()]
    again.append([trial(), trial(draw=1, status="diverged", valid_nll=None)])
    assert book.path.read_bytes() == whole
    # A header cut short: nothing was tried yet.
    book.path.write_bytes(whole[:50])
    assert TrialLog(tmp_path, space().header()).trials() == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.replace("8.5", "8.4", 1), "line 2: damaged, its crc"),
        (lambda text: text.replace('"units"', '"untis"', 1), "line 1: damaged, its crc"),
        (lambda text: text.replace("}", "", 1).replace("{", "", 1), "line 1: damaged"),
        (lambda text: text.split("\n", 1)[1], "is of a search with"),
        (lambda text: text + text.splitlines()[-1] + "\n", "line 4: this trial is a repetition"),
        (lambda text: text.replace("\n", "\n\n", 1), "line 2: damaged"),
    ],
)
def test_any_other_damage_is_an_error(tmp_path, damage, words):
    book = TrialLog(tmp_path, space().header())
    book.append([trial(), trial(draw=1)])
    book.path.write_text(damage(book.path.read_text()))
    before = book.path.read_bytes()
    with pytest.raises(ValueError, match=words):
        TrialLog(tmp_path, space().header())
    assert book.path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "is of a search with search_seed=0, not 1: give another workdir"),
        ({"protocol": "controlled"}, "protocol='chung', not 'controlled'"),
        ({"changes": {"max_epochs": 2}}, "no changes.max_epochs, which is 2 now"),
        ({"experiment": "speech"}, "is of a search with experiment='music', not 'speech': give"),
    ],
)
def test_a_journal_of_another_space_is_refused(tmp_path, changes, words):
    TrialLog(tmp_path, space().header())
    with pytest.raises(ValueError, match=words) as refused:
        TrialLog(tmp_path, space(**changes).header())
    assert len(str(refused.value)) < 400


def test_draws_that_came_out_otherwise_are_another_space_too(tmp_path):
    header = space().header()
    TrialLog(tmp_path, header)
    header["draws"]["1"]["learning_rate"] *= 1.1
    with pytest.raises(ValueError, match=r"is of a search with draws\.1\.learning_rate="):
        TrialLog(tmp_path, header)


@pytest.mark.full
@pytest.mark.parametrize("unit", ["tanh", full("lstm")])
def test_a_winner_that_is_committed_scores_as_its_record_says(unit, tmp_path, monkeypatch):
    """To 1e-4 nats: it was trained elsewhere, by programs that added in another order."""
    folder = collect.RESULTS / "chung" / f"chung-jsb-{unit}-0"
    assert (folder / records.FILE).is_file()
    monkeypatch.setenv("SURNN_CACHE", str(tmp_path))
    try:
        kept = registry.restore(folder, None)
    except FileNotFoundError as error:
        pytest.skip(f"needs the original data: {error}")
    assert scores(kept.prepared, kept.params)[0] == pytest.approx(kept.record.metrics, abs=1e-4)
