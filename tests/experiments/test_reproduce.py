"""Reproduction: equal effort, the plan, and what is left after kills and failures."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest
from tiers import tiered

from experiments.report import collect
from experiments.runner import records
from experiments.runner.experiment import count
from experiments.tasks.sequence import data, task
from experiments.tuning import effort, jobs, matrix
from experiments.tuning import workers as workers_


def parameters(config):
    """How many numbers the model has; vocabularies that only files tell are given here."""
    spec = data.dummy_spec(config)
    words = {"imdb_bytes": (257, 2), "wikipairs": (257, 2), "listops_short": (17, 10)}
    if config.dataset in words:
        tokens, outputs = words[config.dataset]
        spec = spec._replace(tokens=tokens, outputs=outputs)
    if config.dataset == "wikitext2":
        spec = spec._replace(tokens=33278, outputs=33278)
    trained = task.task_of(config, task.model_of(config, spec), spec)
    shapes = jax.eval_shape(trained.init, jax.random.key(0), data.dummy_batch(config, spec))
    return count(shapes)


@pytest.mark.parametrize("name", tiered(matrix.TASKS, ("adding",)))
def test_models_of_a_task_have_like_numbers_of_parameters(name):
    entries = [entry for entry in matrix.surnn() if entry.task == name]
    sizes = {entry.model: parameters(entry.config("cpu")) for entry in entries}
    assert max(sizes.values()) <= 1.1 * min(sizes.values()), sizes


def test_all_models_of_a_task_have_the_same_budget():
    for name in matrix.TASKS:
        configs = [entry.config("cpu") for entry in matrix.surnn() if entry.task == name]
        shared = {
            (c.dataset, c.examples, c.max_epochs, c.batch_size, c.schedule, c.warmup, c.clip,
             c.optimiser)
            for c in configs
        }  # fmt: skip
        assert len(shared) == 1, shared
        assert configs[0].examples
        assert configs[0].evaluated in (0, 2000, 2048) or name == "mackey-glass"


def test_draws_cover_the_space_evenly_and_are_the_same_for_every_model():
    drawn = effort.draws("text")
    assert drawn == effort.draws("text") != effort.draws("image")
    rates = sorted(draw.learning_rate for draw in drawn)
    least, most = effort.SPACE["learning_rate"]
    edges = [least * (most / least) ** (part / 4) for part in range(5)]
    for low, rate, high in zip(edges, rates, edges[1:], strict=False):
        assert low * 0.99 <= rate <= high * 1.01


@pytest.mark.parametrize(
    ("full", "divisor", "part"),
    [((16000, 4), 4, (16000, 1)), ((16000, 4), 8, (8000, 1)), ((12800, 32), 8, (12800, 4)),
     ((16000, 2), 8, (4000, 1)), ((100, 1), 4, (25, 1))],
)  # fmt: skip
def test_a_part_of_the_budget_is_that_part(full, divisor, part):
    assert effort.budget(full, divisor) == part


def test_the_best_draws_are_the_lowest_and_diverged_ones_never_win():
    figures = {0: float("inf"), 1: 0.5, 2: 0.25, 3: 0.5}
    assert effort.best(figures, 3) == [2, 1, 3]
    with pytest.raises(ValueError, match="every draw diverged"):
        effort.best({0: float("inf")})


class Steps:
    """A line of real processes: each appends its name to a log, then leaves a file."""

    def __init__(self, name, folder, codes, pause=0.0):
        self.name, self._folder, self._codes, self._pause = name, folder, codes, pause

    def ready(self):
        jobs_ = [self._job(number, code) for number, code in enumerate(self._codes)]
        return [job for job in jobs_ if not self.done(job)]

    def done(self, job):
        return (job.folder / "done").exists()

    def left(self):
        return [1.0] * len(self.ready())

    def seconds(self):
        return None

    def recorded(self):
        return len(self._codes) - len(self.ready())

    def _job(self, number, code):
        folder = self._folder / self.name / str(number)
        text = (
            "import os, pathlib, sys, time\n"
            f"open({str(self._folder / 'log')!r}, 'a').write('{self.name}{number}\\n')\n"
            f"time.sleep({self._pause})\n"
            f"if {code}: sys.exit('no luck')\n"
            f"pathlib.Path({str(folder / 'done')!r}).write_text(str(os.sched_getaffinity(0)))"
        )
        return jobs.Job((sys.executable, "-c", text), folder)


def pool(lines, tmp_path, workers=2):
    outcomes = []
    cores = tmp_path / "cores"
    return workers_.Pool(lines, workers, float("inf"), cores, outcomes.append), outcomes


def test_a_job_that_fails_stops_no_other_and_is_named(tmp_path):
    lines = [Steps("a", tmp_path, [0, 1, 0]), Steps("b", tmp_path, [0])]
    runs, outcomes = pool(lines, tmp_path)
    (failure,) = runs.run()
    assert (failure.name, failure.job.folder.name) == ("a", "1")
    assert failure.error == "exit code 1: no luck"
    assert len(outcomes) == 4
    assert sorted((tmp_path / "log").read_text().split()) == ["a0", "a1", "a2", "b0"]
    again, _ = pool(lines, tmp_path)
    assert [outcome.job.folder.name for outcome in again.run()] == ["1"]  # It is tried again.


def test_what_no_worker_expects_does_not_pass_for_success(tmp_path):
    """Such as a full disk: here, a file in place of the folder of the locks."""
    (tmp_path / "cores").write_text("")
    runs, outcomes = pool([Steps("a", tmp_path, [0])], tmp_path)
    with pytest.raises(FileExistsError):
        runs.run()
    assert outcomes == []


class Damaged(Steps):
    """A line with a result that cannot be read."""

    def ready(self):
        raise ValueError("result.json: damaged")


def test_a_damaged_result_stops_no_other_line(tmp_path, capsys):
    lines = [Damaged("a", tmp_path, [0]), Steps("b", tmp_path, [0])]
    runs, outcomes = pool(lines, tmp_path)
    (failure,) = runs.run()
    assert failure.error == "result.json: damaged"
    for outcome in outcomes:
        workers_.report(outcome, lines)
    assert "b/0 done, 0.0 min; 1 results;" in capsys.readouterr().out


def test_each_job_has_a_core_of_its_own(tmp_path):
    line = Steps("a", tmp_path, [0, 0], pause=0.5)
    pool([line], tmp_path)[0].run()
    cores = {(tmp_path / "a" / n / "done").read_text() for n in ("0", "1")}
    expected = min(2, len(os.sched_getaffinity(0)))
    assert len(cores) == expected
    assert all(len(core.split(",")) == 1 for core in cores)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="Linux groups no sessions")
def test_a_job_is_as_nice_as_its_parent(tmp_path):
    text = (
        "import os, pathlib, sys; from experiments.tuning import workers as w;"
        "import subprocess, time;"
        "p = subprocess.Popen(['sleep', '20'], start_new_session=True);"
        "w._pass_on_niceness(p.pid);"
        "print(pathlib.Path(f'/proc/{p.pid}/autogroup').read_text()); p.kill()"
    )
    done = subprocess.run(
        ["nice", "-n", "7", sys.executable, "-c", text], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "7"


def test_two_at_once_do_each_job_once(tmp_path):
    line = Steps("a", tmp_path, [0] * 6, pause=0.1)
    threads = [threading.Thread(target=pool([line], tmp_path, 1)[0].run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((tmp_path / "log").read_text().split()) == [f"a{n}" for n in range(6)]


def test_a_stop_reaches_the_running_job_and_begins_no_other(tmp_path):
    line = Steps("a", tmp_path, [0] * 5, pause=30)
    runs, outcomes = pool([line], tmp_path, 1)
    threading.Timer(1.0, runs.stop).start()
    begun = time.monotonic()
    assert runs.run() == outcomes == []
    assert time.monotonic() - begun < 20
    assert (tmp_path / "log").read_text().split() == ["a0"]


def test_no_job_begins_after_the_time_is_over(tmp_path):
    """As of `--hours=0`. Workers raced against the clock: two of three times one began a job."""
    for number in range(12):
        line = Steps("a", tmp_path / str(number), [0] * 2)
        late = workers_.Pool([line], 2, time.monotonic(), tmp_path / "cores", print)
        assert late.run() == []
        assert not (tmp_path / str(number)).exists()


def test_a_claim_outlives_a_killed_parent_as_long_as_its_job_runs(tmp_path):
    job = jobs.Job((), tmp_path / "job")
    with job.claim() as claim:
        child = subprocess.Popen(["sleep", "30"], pass_fds=(claim,))
    try:  # The parent's descriptor is closed, as after its death.
        with job.claim() as second:
            assert second is None
    finally:
        child.kill()
        child.wait()
    with job.claim() as third:
        assert third is not None


def trial(job, valid, seconds=60.0):
    job.folder.mkdir(parents=True)
    result = {"valid": valid, "seconds": seconds, "config": job.config}
    (job.folder / "trial.json").write_text(json.dumps(result))


def ladder(tmp_path):
    entry = matrix.Entry("lra", "text", "gru")
    return jobs.Ladder(entry, tmp_path / "runs", tmp_path / "results")


def test_a_ladder_halves_its_draws_and_trains_the_winner_with_every_seed(tmp_path):
    steps = ladder(tmp_path)
    first = steps.ready()
    assert [job.folder.name for job in first] == [f"draw-{n}-of-8" for n in range(4)]
    assert {"--trial", "--seed=0", "--train_examples=4000", "--max_epochs=1"} <= set(
        first[0].command
    )
    assert sum(steps.left()) == 4 / 8 + 2 / 4 + 3
    for job, valid in zip(first, (0.4, 0.2, 0.3, 0.5), strict=True):
        trial(job, valid)
    assert steps.seconds() == 8 * 60
    second = steps.ready()
    assert [job.folder.name for job in second] == ["draw-1-of-4", "draw-2-of-4"]
    trial(second[0], 0.2)
    trial(second[1], "inf", seconds=1.0)  # It diverged: done, and never wins.
    assert steps.seconds() == (4 * 8 * 60 + 4 * 60) / 5
    last = steps.ready()
    assert [job.folder.name for job in last] == ["seed-0", "seed-1", "seed-2"]
    rate = f"--learning_rate={steps.draws[1].learning_rate}"
    assert all(rate in job.command and "--trial" not in job.command for job in last)


def test_what_is_left_counts_no_trial_of_a_draw_that_diverged(tmp_path):
    steps = ladder(tmp_path)
    for job, valid in zip(steps.ready(), (0.4, "inf", "inf", "inf"), strict=True):
        trial(job, valid)
    (job,) = steps.ready()  # One draw is left for the second round.
    assert sum(steps.left()) == 1 / 4 + 3
    trial(job, 0.4)
    assert sum(steps.left()) == 3


def test_a_step_that_was_not_finite_does_not_make_a_trial_a_finished_one(tmp_path):
    """Its folder may be of an older preset; a trial that diverges says so beside its settings."""
    steps = ladder(tmp_path)
    before = [job.folder for job in steps.ready()]
    before[0].mkdir(parents=True)
    (before[0] / "nonfinite.jsonl").write_text("{}\n")
    assert [job.folder for job in steps.ready()] == before


def tried(tmp_path):
    """A ladder all of whose trials are done; draw 3 is the best."""
    steps = ladder(tmp_path)
    for _ in effort.ROUNDS:
        for job in steps.ready():
            trial(job, 0.1 * abs(int(job.folder.name.split("-")[1]) - 3))
    return steps


def finish(steps, folder, seed, draw=3, **changes):
    """Leaves the record of a winner's run, as training does."""
    drawn = steps.draws[draw]
    config = dataclasses.replace(
        steps.entry.config("cpu"),
        seed=seed,
        learning_rate=drawn.learning_rate,
        weight_decay=drawn.weight_decay,
        **changes,
    )
    old = records.read(next(iter(sorted((collect.RESULTS / "surnn").glob("*.json")))))
    (folder / f"seed-{seed}").mkdir(parents=True)
    record = old._replace(seed=seed, config=dataclasses.asdict(config), search=None)
    records.write(record, folder / f"seed-{seed}")


def test_published_results_say_how_they_were_chosen_and_are_not_run_again(tmp_path):
    steps = tried(tmp_path)
    home = tmp_path / "runs" / "text" / "gru"
    for seed in (0, 1):
        finish(steps, home, seed)
    (home / "seed-0" / records.PARAMETERS).write_bytes(b"parameters")
    (home / "seed-1" / "metrics.jsonl").write_text("{}\n")
    (home / "seed-1" / "log.txt").write_text("not published")
    assert [folder.name for folder in steps.publish()] == ["seed-0", "seed-1"]
    assert steps.publish() == []
    kept = tmp_path / "results" / "text" / "gru"
    assert (kept / "seed-0" / records.PARAMETERS).read_bytes() == b"parameters"
    assert {path.name for path in (kept / "seed-1").iterdir()} == {records.FILE, "metrics.jsonl"}
    search = records.read(kept / "seed-1" / records.FILE).search
    assert search["protocol"] == "equal"
    assert search["draw"] == 3
    assert search["rounds"][0] == pytest.approx({"0": 0.3, "1": 0.2, "2": 0.1, "3": 0.0})
    # In a fresh clone, where only the committed results are, the third seed alone is left.
    fresh = jobs.Ladder(steps.entry, tmp_path / "elsewhere", tmp_path / "results")
    assert [job.folder.name for job in fresh.ready()] == ["seed-2"]
    assert f"--learning_rate={steps.draws[3].learning_rate}" in fresh.ready()[0].command
    assert (fresh.recorded(), fresh.left()) == (2, [1.0])
    # Its record says of the search what those of the others say: the trials are not there.
    finish(steps, tmp_path / "elsewhere" / "text" / "gru", 2)
    assert [folder.name for folder in fresh.publish()] == ["seed-2"]
    assert records.read(kept / "seed-2" / records.FILE).search == search


def test_what_was_not_copied_when_publishing_ended_is_copied_by_the_next(tmp_path):
    steps = tried(tmp_path)
    home, kept = tmp_path / "runs" / "text" / "gru", tmp_path / "results" / "text" / "gru"
    finish(steps, home, 0)
    (home / "seed-0" / "metrics.jsonl").write_text("{}\n")
    (kept / "seed-0" / "metrics.jsonl").mkdir(parents=True)  # It cannot be written.
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        steps.publish()
    (kept / "seed-0" / "metrics.jsonl").rmdir()
    assert [folder.name for folder in steps.publish()] == ["seed-0"]
    assert (kept / "seed-0" / "metrics.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize("change", [{"draw": 1}, {"features": 32}])
def test_a_run_of_another_configuration_is_not_taken_for_that_of_the_winner(tmp_path, change):
    """As after a preset has changed, and its trials alone were run again."""
    steps = tried(tmp_path)
    finish(steps, tmp_path / "runs" / "text" / "gru", 1, **change)
    for call in (steps.ready, steps.publish):
        with pytest.raises(ValueError, match=r"seed-1: holds a run of another configuration"):
            call()


def test_a_committed_run_of_another_recipe_is_joined_by_no_seed_of_this_one(tmp_path):
    """The number of its draw would mean other rates, and a row would hold two recipes."""
    steps = tried(tmp_path)
    results, home = tmp_path / "results" / "text" / "gru", tmp_path / "runs" / "text" / "gru"
    finish(steps, home, 0)
    steps.publish()
    kept = results / "seed-0"
    record = records.read(kept / records.FILE)
    records.write(record._replace(config={**record.config, "max_epochs": 1}), kept)
    finish(steps, home, 1)
    for call in (steps.ready, steps.publish):
        with pytest.raises(ValueError, match=r"results/text/gru/seed-0: holds a run of another"):
            call()


def test_nothing_is_published_without_its_trials(tmp_path):
    steps = tried(tmp_path)
    finish(steps, tmp_path / "runs" / "text" / "gru", 0)
    shutil.rmtree(tmp_path / "runs" / "text" / "gru" / "draw-2-of-4")
    with pytest.raises(ValueError, match="trials on a part of 1/4 are missing"):
        steps.publish()


@pytest.mark.parametrize(
    "text", ['{"valid"', "[]", '{"config": {}}', '{"config": {}, "valid": null, "seconds": 1}']
)
def test_a_damaged_trial_is_named(tmp_path, text):
    steps = ladder(tmp_path)
    trial(steps.ready()[0], 0.1)
    (tmp_path / "runs" / "text" / "gru" / "draw-0-of-8" / "trial.json").write_text(text)
    with pytest.raises(ValueError, match=r"draw-0-of-8/trial.json: damaged .* delete this folder"):
        steps.ready()


def test_a_trial_of_an_older_preset_is_not_taken_for_one_of_today(tmp_path):
    steps = ladder(tmp_path)
    job = steps.ready()[0]
    trial(job._replace(config={**job.config, "features": 32}), 0.1)
    with pytest.raises(ValueError, match=r"draw-0-of-8: holds a trial of another configuration"):
        steps.ready()
