"""Records of runs and the tables made of them."""

import dataclasses
import json
import platform
import resource
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import surnn_jax
from experiments.report import collect, listing, runs, sources, suites
from experiments.runner import records
from experiments.runner.records import Record
from experiments.tasks.music import config as music_config

ROOT = Path(collect.__file__).parents[2]


def record(**changes):
    """A record of a GRU; `config` adds to its configuration."""
    config = {"features": 46, "rate": 0.5, "seed": changes.get("seed", 0)}
    fields = {
        "experiment": "music",
        "dataset": "jsb",
        "cell": "gru",
        "switch": "none",
        "seed": 0,
        "parameters": 22_766,
        "recurrent_parameters": 18_630,
        "update_rate": 1.0,
        "metrics": {"train_nll": 7.5, "valid_nll": 8.4375, "test_nll": 8.5},
        "best_epoch": 34,
        "steps": 1421,
        "seconds": 12.25,
        "versions": {"jax": "0.10.2"},
        "command": "python -m experiments.music --cell=gru",
    }
    return Record(**{**fields, **changes, "config": {**config, **changes.get("config", {})}})


def nll(test, valid):
    return {"train_nll": 7.0, "valid_nll": valid, "test_nll": test}


def put(folder, name, what):
    """Writes a record, or any text, to a file of that name."""
    folder.mkdir(parents=True, exist_ok=True)
    text = what if isinstance(what, str) else json.dumps(records.to_fields(what))
    (folder / name).write_text(text)


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """An empty folder in place of the committed records of the music suite."""
    monkeypatch.setattr(collect, "RESULTS", tmp_path / "results")
    return tmp_path / "results" / "music"


def test_records_come_back(tmp_path):
    written = record(seed=3, config={"features": None})
    assert records.write(written, tmp_path) == tmp_path / "result.json"
    again = records.read(tmp_path / "result.json")
    assert again == written
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_file_holds_what_is_promised(tmp_path):
    records.write(record(), tmp_path)
    promised = "experiment dataset cell switch parameters update_rate metrics steps seconds config"
    content = json.loads((tmp_path / "result.json").read_text())
    assert {*promised.split(), "versions"} <= content.keys()


def test_versions_are_those_in_use():
    found = records.versions()
    assert list(found) == [
        "python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "surnn_jax"
    ]  # fmt: skip
    assert found["python"] == platform.python_version()
    assert found["jax"] == jax.__version__
    assert found["numpy"] == np.__version__
    assert found["surnn_jax"] == surnn_jax.__version__


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"update_rate": float("nan")}, "update_rate should be a finite number"),
        ({"update_rate": 1.5}, "update_rate should lie in 0..1, but is 1.5"),
        ({"metrics": {"test_nll": float("inf")}}, "metrics should be finite numbers by name"),
        ({"steps": 1.0}, "steps should be a whole number that is not negative, but is 1.0"),
        ({"parameters": True}, "parameters should be a whole number"),
        ({"seconds": -1.0}, "seconds should be a finite number that is not negative"),
        ({"cell": None}, "cell should be a string, but is None"),
        ({"versions": {"jax": 1}}, "versions should be strings by name"),
    ],
)
def test_a_bad_value_is_neither_written_nor_read(tmp_path, changes, message):
    records.write(record(), tmp_path)
    before = (tmp_path / "result.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        records.write(record(**changes), tmp_path)
    assert (tmp_path / "result.json").read_bytes() == before
    put(tmp_path, "bad.json", record(**changes))
    with pytest.raises(ValueError, match=r"bad\.json: "):
        records.read(tmp_path / "bad.json")


def without(name):
    return json.dumps({k: v for k, v in records.to_fields(record()).items() if k != name})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"damaged, not whole JSON .*; run it again"),
        (json.dumps(records.to_fields(record()))[:-20], "damaged, not whole JSON"),
        ("[1, 2]", "holds a list, not the result of a run"),
        ('{"loss": 1}', r"lacks experiment, dataset, .* and has the unknown loss; "),
        (without("steps"), "lacks steps; the result of a run has exactly the fields experiment"),
        (json.dumps(records.to_fields(record()) | {"x": 1}), "result.json: has the unknown x"),
        (json.dumps(records.to_fields(record())).replace("12.25", "NaN"), "NaN is not a number"),
    ],
)
def test_what_is_no_record_is_named(tmp_path, text, message):
    put(tmp_path, "result.json", text)
    with pytest.raises(ValueError, match=message) as refused:
        records.read(tmp_path / "result.json")
    assert str(refused.value).startswith(f"{tmp_path / 'result.json'}: ")
    assert "\n" not in str(refused.value)


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "result.json").write_bytes(b"\x93NUMPY\xff\xfe")
    with pytest.raises(ValueError, match=r"result\.json: damaged"):
        records.read(tmp_path / "result.json")


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/result\.json: no such file"):
        records.read(tmp_path / "nowhere" / "result.json")


SMALL = suites.PaperTable(
    configs={"music": music_config.Config},
    datasets={"jsb": "JSB Chorales", "nottingham": "Nottingham"},
    units={("tanh", "none"): "tanh", ("gru", "none"): "GRU", ("gru", "fourier"): "suGRU"},
    published={
        ("jsb", "gru", "none"): sources.Published(8.54, sources.VERIFIED, "chung"),
        ("jsb", "tanh", "none"): sources.Published(9.1, sources.SECOND_HAND, "lstm-gru"),
        ("nottingham", "gru", "none"): sources.Published(3.23, sources.VERIFIED, "chung"),
    },
    notes="Notes.",
)

HEAD = """\
| unit | published test | test | valid | parameters | updated, % | seconds | n | runs |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def test_a_table_of_what_was_run_and_what_was_not():
    learned = {"switch": "fourier", "command": "b", "recurrent_parameters": 19_048}
    results = [
        record(**learned, seed=2, update_rate=0.5, metrics=nll(8.625, 8.5), seconds=20),
        record(**learned, seed=0, update_rate=0.625, metrics=nll(8.75, 8.625), seconds=10),
        record(**learned, seed=1, update_rate=0.75, metrics=nll(9.5, 9.0), seconds=1200),
        record(),
    ]
    expected = f"""\
**JSB Chorales** (`jsb`; nats a frame)

{HEAD}\
| tanh | 9.10 (second-hand: Chung et al. 2014, table 2, in 2j2h5/lstm-gru) | – | – | – | – | – | – | – |
| GRU | 8.54 (verified: Chung et al. 2014, table 2) | 8.50 | 8.44 | 18,630 | 100.0 | 12 | 1 | 1 |
| suGRU | none | 8.75 (8.62–9.50) | 8.62 (8.50–9.00) | 19,048 | 62.5 (50.0–75.0) | 20 (10–1,200) | 3 | 2 |

**Nottingham** (`nottingham`)

{HEAD}\
| GRU | 3.23 (verified: Chung et al. 2014, table 2) | – | – | – | – | – | – | – |

Not run yet: tanh; suGRU.

Notes.

Runs:

1. `python -m experiments.music --cell=gru`
2. `b`"""  # noqa: E501
    assert runs.markdown(SMALL, results) == expected
    # Whatever order the files came in.
    assert runs.markdown(SMALL, results[::-1]) == expected


def rows(text, unit):
    return [line for line in text.splitlines() if line.startswith(f"| {unit}")]


def test_configurations_are_not_mixed():
    open_, wide = {"rate": 0.8}, {"features": 92}
    results = [
        record(),
        record(config=wide, metrics=nll(8.0, 7.9), recurrent_parameters=50_000),
        record(switch="fourier"),
        record(switch="fourier", config=open_, metrics=nll(8.25, 8.125), update_rate=0.875),
        record(switch="fourier", config=open_, metrics=nll(8.5, 8.25), update_rate=0.875, seed=1),
        record(switch="fourier", config=open_ | wide, metrics=nll(7.0, 6.9)),
    ]
    text = runs.markdown(SMALL, results)
    quoted = "8.54 (verified: Chung et al. 2014, table 2)"
    assert rows(text, "GRU")[:2] == [
        f"| GRU | {quoted} | 8.50 | 8.44 | 18,630 | 100.0 | 12 | 1 | 1 |",
        f"| GRU; features=92 | {quoted} | 8.00 | 7.90 | 50,000 | 100.0 | 12 | 1 | 1 |",
    ]
    assert [row.split(" | ")[0] for row in rows(text, "suGRU")] == [
        "| suGRU",
        "| suGRU; rate=0.8",
        "| suGRU; features=92, rate=0.8",
    ]
    assert " 8.38 (8.25–8.50) " in rows(text, "suGRU; rate=0.8")[0]


def test_what_no_row_was_planned_for_is_shown_too():
    results = [
        record(cell="lstm"),
        record(cell="gru", switch="event-frozen"),
        record(dataset="made_up", cell="tanh"),
    ]
    text = runs.markdown(SMALL, results)
    assert len(rows(text, "lstm | none | 8.50")) == 1
    assert len(rows(text, "gru, event-frozen | none | 8.50")) == 1
    last = text[text.index("**made_up** (`made_up`; nats a frame)") :]
    assert len(rows(last, "tanh | none | 8.50")) == 1


def test_a_command_that_gave_several_rows_is_listed_once():
    both = "python -m experiments.music --preset=jsb"
    results = [
        record(command=both),
        record(command=f"{both} --seed=1", seed=1),
        record(command=both, switch="fourier"),
    ]
    text = runs.markdown(SMALL, results)
    assert runs.markdown(SMALL, results[::-1]) == text
    assert text.endswith(f"Runs:\n\n1. `{both}`\n2. `{both} --seed=1`")
    assert rows(text, "suGRU")[0].endswith(" 1 | 1 |")
    assert rows(text, "GRU")[0].endswith(" 2 | 1, 2 |")


def test_the_music_suite_quotes_the_paper_and_says_how_sure_it_is():
    """What could be verified of table 2 of Chung et al. 2014, test columns; no more is quoted."""
    text = runs.markdown(suites.SUITES["music"], [])
    block = text[text.index("(`jsb`)") :]
    units = [line.split(" | ")[:2] for line in block.split("\n\n")[1].splitlines()[2:]]
    assert units == [
        ["| LSTM, peepholes", "8.67 (second-hand: Chung et al. 2014, table 2, in 2j2h5/lstm-gru)"],
        ["| GRU", "8.54 (verified: Chung et al. 2014, table 2)"],
    ]
    ours = "suGRU, learned rhythm; suGRU, frozen random rhythm; suGRU, events"
    assert block.split("\n\n")[2] == f"Not run yet: tanh; {ours}."
    assert (text.count("(verified:"), text.count("(second-hand:")) == (1, 1)
    assert text.count(" – |") == 2 * 7
    assert text.endswith("Runs: none yet.")


@pytest.mark.parametrize("suite", suites.SUITES)
def test_every_published_figure_has_a_tag_and_a_source_and_none_is_from_memory(suite):
    found = suites.SUITES[suite].published
    for figure in found.values():
        assert figure.tag in (sources.VERIFIED, sources.SECOND_HAND)
        assert sources.SOURCES[figure.source].url.startswith("https://")
    assert "recalled" not in suites.SUITES[suite].notes
    # No source but the paper's own relay says what the paper's own model does.
    own = {figure.source for key, figure in found.items() if key[1].startswith("sugru")}
    assert own <= {"surnn"}


def test_collect_reads_the_committed_records_and_the_runs_below_a_folder(committed, tmp_path):
    put(committed, "jsb-gru-0.json", record())
    put(committed, "jsb-tanh-0.json", record(cell="tanh"))
    further = tmp_path / "runs"
    # Run again on another machine: takes the place of the committed one.
    put(further / "a", "result.json", record(metrics=nll(8.625, 8.5)))
    put(further / "b" / "c", "result.json", record(seed=1))
    put(further / "speech", "result.json", record(experiment="speech"))
    put(further, "other.json", "{}")
    found = collect.collect("music", further)
    assert sorted((r.cell, r.seed, r.metrics["test_nll"]) for r in found) == [
        ("gru", 0, 8.625), ("gru", 1, 8.5), ("tanh", 0, 8.5)
    ]  # fmt: skip
    assert [r.cell for r in collect.collect("music")] == ["gru", "tanh"]


def test_the_same_run_counts_once_and_a_contradiction_is_refused(committed):
    put(committed, "a.json", record())
    put(committed, "b.json", record(seconds=99.0))
    assert [r.seconds for r in collect.collect("music")] == [12.25]
    put(committed, "c.json", record(metrics=nll(8.0, 8.0)))
    with pytest.raises(ValueError, match=r"a\.json and .*c\.json have the same configuration"):
        collect.collect("music")


def test_a_record_of_an_older_version_is_completed_and_one_of_another_refused(committed):
    put(committed, "a.json", record())
    (found,) = collect.collect("music")
    assert found.config == dataclasses.asdict(music_config.Config(features=46, rate=0.5))
    put(committed, "b.json", record(seed=1, config={"width": 3}))
    with pytest.raises(ValueError, match=r"b\.json: its configuration has width, which no run"):
        collect.collect("music")


def test_a_record_without_the_metric_is_named(committed):
    put(committed, "a.json", record(metrics={"train_nll": 1.0, "test_nll": 1.0}))
    with pytest.raises(ValueError, match=r"a\.json: its metrics lack valid_nll"):
        collect.collect("music")


def program(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments.tables", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_program_prints_the_table(tmp_path):
    put(tmp_path, "result.json", record(dataset="made_up", cell="made_up"))
    done = program("--suite=music", f"--results={tmp_path}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "| made_up | none | 8.50 | 8.44 | 18,630 | 100.0 | 12 | 1 |" in done.stdout
    assert (
        done.stdout
        == runs.markdown(suites.SUITES["music"], collect.collect("music", tmp_path)) + "\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--suite should be one of: music"),
        (["--suite=speech"], "--suite should be one of: music, surnn, chung; got speech"),
        (["--suite=music", "--results={}/none"], "none: no result.json in or below"),
        (["--suite=music", "--results={}"], "result.json: damaged, not whole JSON"),
        (["--suite=music", "--nonsense=1"], "nonsense"),
        (["--suite=music", "jsb"], "expected no argument"),
    ],
)
def test_the_program_refuses_in_one_line(tmp_path, arguments, words):
    put(tmp_path, "result.json", '{"experiment": "mus')
    done = program(*(argument.format(tmp_path) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr


def test_help_is_quick():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = program("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, which does not grow with others' work.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert done.returncode == 0
    for words in ("--suite", "--results", "result.json"):
        assert words in done.stdout


def test_nothing_slow_is_imported_before_it_is_used():
    code = (
        "import sys; from experiments import music, tables; "
        "from experiments.analysis import curves; "
        "print({'jax', 'matplotlib', 'music21', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(-12.345, "-12.35"), (-0.0123, "-0.012"), (0.0, "0.00"), (0.000105, "0.00011"), (8.5, "8.50")],
)
def test_densities_above_1_have_two_decimals_too(value, text):
    assert runs.line([runs._figure(value)]) == f"| {text} |"


def test_the_list_of_presets_finds_records_older_than_a_setting(committed):
    config = music_config.Config(dataset="jsb")
    older = {k: v for k, v in dataclasses.asdict(config).items() if k != "accumulate"}
    put(committed, "older.json", record(dataset="jsb", config=older, metrics=nll(8.25, 8.5)))
    presets = {"jsb-gru": {"": config}, "jsb-two": {"": dataclasses.replace(config, accumulate=2)}}
    first, second = listing.show("music", presets, "jsb").splitlines()[-2:]
    assert ("8.25" in first, "8.25" in second) == (True, False)
    assert listing.show("music", presets).splitlines()[-1] == "jsb: jsb-two"
