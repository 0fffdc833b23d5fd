"""The report: made of the committed records alone, whole, and fit to be looked at."""

import base64
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from browser import find, opened

from experiments.report import claims, collect, evidence, html, page
from experiments.report.evidence import EQUAL
from experiments.report.verdicts import Verdict
from experiments.runner import records
from experiments.tuning import effort, matrix

COMMITTED = html.ROOT / html.FOLDER / "index.html"
VOID = {"meta", "link", "img", "br", "circle", "rect", "line", "path", "polyline", "polygon"}


class Reader(HTMLParser):
    """What a page links to, names and loads; fails at a tag that is not closed in order."""

    def __init__(self, content):
        super().__init__()
        self.links, self.names, self.loaded, self.open, self.tags = [], [], [], [], set()
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.links += [found["href"]] if tag == "a" else []
        self.names += [found["id"]] if "id" in found else []
        self.loaded += [found[key] for key in ("src", "srcset") if key in found]
        self.loaded += [found["href"]] if tag == "link" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_committed_page_is_what_the_committed_records_give():
    """If this fails, records were added or the page's code was changed: run `make report`."""
    again = page.build().encode()
    assert again == COMMITTED.read_bytes(), "run `make report` and commit docs/report/index.html"


def test_another_process_writes_the_same_bytes(tmp_path):
    written = tmp_path / "page.html"
    command = [sys.executable, "-m", "experiments.report_page", f"--output={written}"]
    done = subprocess.run(
        command, cwd=html.ROOT, capture_output=True, text=True, check=True, timeout=180
    )
    assert done.stdout == f"{written}\n"
    assert written.read_bytes() == COMMITTED.read_bytes()


def test_it_takes_neither_jax_nor_matplotlib():
    code = "import sys; from experiments.report import page; page.build(); "
    code += "print({'jax', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=html.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_links_lead_to_files_and_names_that_exist():
    read = Reader(COMMITTED.read_text())
    assert len(read.names) == len(set(read.names))
    assert len(read.links) > 300
    for link in read.links:
        if link.startswith("#"):
            assert link[1:] in read.names, link
        elif not link.startswith("https://"):
            assert (COMMITTED.parent / link).is_file(), link
    for source in read.loaded:
        assert source.startswith("data:") or (COMMITTED.parent / source).is_file(), source


def test_nothing_comes_from_outside_and_nothing_of_this_machine_is_in_it():
    content = COMMITTED.read_text()
    read = Reader(content)
    assert not {"script", "iframe", "object", "embed"} & read.tags
    assert not [source for source in read.loaded if "//" in source]
    style = content[content.index("<style>") : content.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert str(html.ROOT) not in content


def test_every_record_is_linked():
    links = {link.rpartition("results/")[2] for link in Reader(COMMITTED.read_text()).links}
    groups = evidence.groups()
    paths = [path for group in groups for runs in group.runs.values() for path, _ in runs]
    assert len(paths) > 150
    for path in paths:
        assert path.relative_to(collect.RESULTS).as_posix() in links


def test_published_figures_stand_with_their_tags_and_sources():
    content = COMMITTED.read_text()
    assert re.search(r'80\.32 <a class="tag" href="#source-surnn"', content)
    assert re.search(r'64\.27 <a class="tag sure" href="#source-lra"', content)
    assert "recalled" not in content


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A copy of the committed records but those of equal effort; others can be added."""
    home = tmp_path / "results"
    shutil.copytree(collect.RESULTS, home, ignore=shutil.ignore_patterns("*.npz", "short"))
    monkeypatch.setattr(collect, "RESULTS", home)
    return home


def published(results, task, model, errors, seconds=100.0, rate=1.0):
    """Puts the records of one cell where `experiments.reproduce --publish` would."""
    (entry,) = (e for e in matrix.surnn() if (e.task, e.model) == (task, model))
    config, drawn = entry.config("cpu"), effort.draws(task)
    old = records.read(results / "surnn" / "text-sugru-cpu-0.json")
    for seed, error in enumerate(errors):
        folder = results / "surnn" / "short" / entry.name / f"seed-{seed}"
        folder.mkdir(parents=True)
        record = old._replace(
            dataset=config.dataset,
            cell=config.kinds,
            switch=config.switch_name,
            seed=seed,
            seconds=seconds,
            update_rate=rate,
            metrics={**old.metrics, "test_error": error},
            config={**vars(config), "seed": seed},
            search=effort.summary(drawn, [dict.fromkeys(range(4), 0.5), {1: 0.4, 2: 0.5}], 1),
        )
        records.write(record, folder)
        lines = [{"epoch": 1, "valid/error": 0.5}, {"epoch": 2, "valid/error": error}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def of(number):
    return next(claim for claim in claims.claims(evidence.groups()) if claim.number == number)


def test_new_records_show_up_and_missing_ones_are_said_to_be(results):
    published(results, "text", "sugru", (0.35, 0.36, 0.37), rate=0.2)
    published(results, "text", "sugru-soft", (0.40, 0.42, 0.41))
    content = page.build()
    (part,) = of(4).parts
    (row,) = part.rows
    assert row.task.startswith("LRA Text, first 512 steps")
    assert {seed: round(gain, 6) for seed, gain in row.gains.items()} == {0: 5, 1: 6, 2: 4}
    assert row.verdict(part.kind) is Verdict.HOLDS
    # One task is too few to decide over all, and two are still missing.
    assert of(4).verdict is Verdict.OPEN
    assert part.missing == ["LRA Image", "sMNIST"]
    assert "+5.00" in content
    assert content.count("3 of 3") == 2
    assert "not run" in content
    # Their learning curves are drawn, and their table has the planned models without a run.
    assert "No committed record has a learning curve" not in content
    assert content.count('class="curve k') >= 2
    assert "after an eighth of the budget" in content
    (group,) = (group for group in evidence.groups() if group.protocol == EQUAL)
    table = content[content.index(f'<h4 id="{group.anchor}">') :].partition("</table>")[0]
    assert table.count("not run") == len({e.model for e in matrix.surnn() if e.task == "text"}) - 2
    Reader(content)


def test_three_tasks_decide_a_claim_and_the_records_alone_turn_it(results):
    for task in ("text", "image", "smnist"):
        published(results, task, "sugru", (0.35, 0.36, 0.37))
        published(results, task, "sugru-soft", (0.40, 0.42, 0.41))
    assert of(4).verdict is Verdict.HOLDS
    for path in (results / "surnn" / "short").glob("*/sugru-soft/*/result.json"):
        record = records.read(path)
        better = {**record.metrics, "test_error": record.metrics["test_error"] - 0.2}
        records.write(record._replace(metrics=better), path.parent)
    assert of(4).verdict is Verdict.FAILS


@pytest.mark.parametrize(
    "changes", [{"data": {"kind": "sample", "name": "a part"}}, {"config": {"max_epochs": 9}}]
)
def test_other_data_or_another_budget_is_not_compared(results, changes):
    for model in ("sugru", "sugru-soft"):
        published(results, "text", model, (0.35, 0.36, 0.37))
    assert len(of(4).parts[0].rows) == 1
    for path in (results / "surnn" / "short").glob("*/sugru-soft/*/result.json"):
        record = records.read(path)
        more = {**changes, "config": {**record.config, **changes.get("config", {})}}
        records.write(record._replace(**more), path.parent)
    assert of(4).parts[0].rows == []
    shown = [group.runs.keys() for group in evidence.groups() if group.protocol == EQUAL]
    assert [len(models) for models in shown] == [1, 1]


def test_originals_and_what_the_generator_draws_are_not_compared(results):
    for name in ("sugru", "transformer"):
        path = results / "surnn" / f"listops-{name}-cpu-0.json"
        record = records.read(path)
        where = results / "surnn" / "more" / name
        where.mkdir(parents=True)
        original = {"kind": "original", "name": "basic_train.tsv"}
        records.write(record._replace(data=original, seed=1), where)
    first, second = (g for g in evidence.groups() if g.dataset == "listops")
    assert {first.title, second.title} == {
        "LRA ListOps, sequences of at most 640 steps",
        "LRA ListOps, sequences of at most 640 steps, made here",
    }
    assert [row.note for row in of(7).parts[0].rows if "ListOps" in row.task] == [
        "one seed, not tuned alike"
    ] * 2


def test_of_two_budgets_of_a_task_the_larger_decides(results):
    for model, errors in (("sugru", (0.35, 0.36, 0.37)), ("sugru-soft", (0.4, 0.42, 0.41))):
        published(results, "text", model, errors)
        for path in list((results / "surnn" / "short").glob(f"*/{model}/seed-?/result.json")):
            record = records.read(path)
            folder = path.parent.with_name(f"more-{path.parent.name}")
            folder.mkdir()
            config = {**record.config, "max_epochs": 9}
            records.write(record._replace(config=config, steps=9 * record.steps), folder)
    (part,) = of(4).parts
    smaller, larger = sorted(part.rows, key=lambda row: row.updates)
    assert (smaller.able, larger.able) == (False, True)
    assert smaller.note == "a smaller budget of the same task"
    assert part.overall.tasks == 1


def test_an_error_of_zero_and_a_model_that_never_updates_can_be_shown(results):
    for model, rate in (("sugru", 0.0), ("gru", 1.0)):
        published(results, "mackey-glass", model, (0.0, 0.0, 0.0), rate=rate)
    for path in (results / "surnn" / "short" / "mackey-glass").rglob("result.json"):
        record = records.read(path)
        metrics = {f"{split}_mse": 0.0 for split in ("valid", "test")}
        metrics |= {f"{split}_power": 1.0 for split in ("valid", "test")}
        records.write(record._replace(metrics=metrics), path.parent)
    assert "Mackey-Glass" in page.build()
    (row,) = (row for row in of(6).parts[0].rows if "Mackey" in row.task)
    assert set(row.gains.values()) == {0.0}


def test_runs_that_were_not_tuned_alike_decide_nothing(results):
    for task in ("text", "image", "smnist"):
        published(results, task, "sugru", (0.35, 0.36, 0.37))
        published(results, task, "sugru-soft", (0.40, 0.42, 0.41))
    for path in (results / "surnn" / "short").rglob("result.json"):
        records.write(records.read(path)._replace(search=None), path.parent)
    (part,) = of(4).parts
    assert [(row.note, row.verdict(part.kind)) for row in part.rows] == [
        ("3 seeds, not tuned alike", Verdict.OPEN)
    ] * 3
    assert of(4).verdict is Verdict.OPEN


def test_without_records_every_claim_on_them_is_undecided(results):
    for path in results.rglob("*.json"):
        path.unlink()
    found = claims.claims(evidence.groups())
    assert len(found) == 9
    assert {claim.verdict for claim in found} == {Verdict.OPEN}
    assert not [row for claim in found if claim.number != 8 for part in claim.parts
                for row in part.rows]  # fmt: skip


def test_of_two_searches_for_a_data_set_the_one_with_more_draws_counts(results):
    before = of(3).parts[0].rows
    for path in sorted((results / "chung").rglob("*.json")):
        name = path.stem if path.name != records.FILE else path.parent.name
        if name.startswith("controlled-fsdd-"):
            record = records.read(path)
            search = {**record.search, "budget": 10}
            folder = results / "chung" / f"more-{name}"
            folder.mkdir()
            records.write(record._replace(search=search), folder)
    after = of(3).parts[0].rows
    assert [row.task for row in after] == [row.task for row in before]
    (changed,) = (a.link for a, b in zip(after, before, strict=True) if a.link != b.link)
    assert "10-draws" in changed


def test_events_that_open_too_often_are_left_out(results):
    for model, rate in (("sugru-event", 0.12), ("gru", 1.0)):
        published(results, "selective-copy", model, (0.1, 0.1, 0.1), rate=rate)
    against_gru = of(9).parts[2]
    assert "Selective Copy, 256 steps" in against_gru.note
    assert [row for row in against_gru.rows if len(row.gains) == 3] == []
    shutil.rmtree(results / "surnn" / "short" / "selective-copy")
    published(results, "selective-copy", "sugru-event", (0.1, 0.1, 0.1), rate=0.1)
    published(results, "selective-copy", "gru", (0.2, 0.2, 0.2))
    (row,) = (row for row in of(9).parts[2].rows if len(row.gains) == 3)
    assert row.estimate.mean == pytest.approx(10)


@pytest.mark.full
@pytest.mark.skipif(find() is None, reason="no Chromium or Chrome on this machine")
def test_a_browser_shows_the_page_light_dark_narrow_and_printed():
    with opened(find()) as tab:
        for width, dark in ((1200, False), (1200, True), (380, False), (380, True)):
            tab.open(COMMITTED, width, dark)
            red, green, blue = tab.value(
                "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
            )
            assert (red + green + blue < 200) == dark
            # Wide tables scroll by themselves; the page never does sideways.
            assert tab.value("document.documentElement.scrollWidth") <= width
            dead = "[...document.querySelectorAll('a[href^=\"#\"]')]"
            dead += ".filter(a => !document.getElementById(a.hash.slice(1))).map(a => a.hash)"
            assert tab.value(dead) == []
            load = "Promise.all([...document.images].map(i => {i.loading = 'eager';"
            load += " return i.decode().then(() => i.naturalWidth)}))"
            assert min(tab.value(load)) > 100
            # Text of pictures stays inside them.
            out = "[...document.querySelectorAll('svg[role=img] text')].filter(t => {"
            out += "const b = t.getBoundingClientRect(), s = t.ownerSVGElement"
            out += ".getBoundingClientRect(); return b.left < s.left - 2 || b.right > s.right + 2})"
            assert tab.value(f"{out}.map(t => t.textContent)") == []
        tab.ask("Emulation.setEmulatedMedia", media="", features=[])
        printed = base64.b64decode(tab.ask("Page.printToPDF", printBackground=True)["data"])
        assert printed.startswith(b"%PDF")
        assert tab.complaints == []
