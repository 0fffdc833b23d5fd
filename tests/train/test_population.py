"""Several members trained at once: each as if it were alone, whatever happens to the others."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import train_case as case
from tiers import full

from surnn_jax import train
from surnn_jax.train import checkpoint, state, step
from surnn_jax.train.population_step import PopulationState, evaluate_all, train_step_all

ROOT = Path(__file__).parents[2]
OPTIMIZER = train.OptimizerConfig(
    schedule="cosine", total_steps=24, clip=1.0, switch_scale=0.5, warmup=2
)
# The second is at its best before the last epoch.
MEMBERS = (
    train.HyperParameters(0.01, 0.0, 0),
    train.HyperParameters(0.05, 0.1, 1),
    train.HyperParameters(0.002, 0.5, 0),
)
WILD = train.HyperParameters(1e30, 0.0, 2)
TROUBLED = (MEMBERS[0], WILD, train.HyperParameters(1e-30, 0.0, 0))


def fit(workdir, members=MEMBERS, **changes):
    """Four epochs of six steps, with `changes` to the arguments or the settings."""
    settings = {"max_epochs": 4, "monitor": "mse"}
    for name in train.Settings.__dataclass_fields__:
        if name in changes:
            settings[name] = changes.pop(name)
    arguments = {
        "task": case.TASK,
        "optimizer": OPTIMIZER,
        "members": members,
        "batches": case.batch,
        "steps_per_epoch": case.STEPS,
        "evaluation": case.evaluation,
        "settings": train.Settings(**settings),
        "config": case.CONFIG,
        "workdir": workdir,
    }
    return train.fit_population(**{**arguments, **changes})


def alone(workdir, member, **changes):
    """The same by the trainer of one."""
    optimizer = train.OptimizerConfig(
        learning_rate=member.learning_rate,
        weight_decay=member.weight_decay,
        schedule="cosine",
        total_steps=24,
        clip=1.0,
        switch_scale=0.5,
        warmup=2,
    )
    return case.fit(
        workdir,
        optimizer=train.make_optimizer(optimizer),
        seed=member.seed,
        save_seconds=9.0,
        **changes,
    )


def member_of(done, number):
    return jax.tree.map(lambda leaf: np.asarray(leaf[number]), done.params)


def fate(outcome):
    """An outcome without what a clock decides."""
    return outcome._replace(seconds=0.0)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("population") / "three")


def assert_close(ours, theirs):
    # The compiler fuses otherwise inside the loop over members: some rounding in float32.
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "number"), [(3, 1), full(3, 2), full(1, 0)])
def test_one_alone_and_each_of_three_are_as_the_trainer_of_one_makes_them(
    size, number, three, tmp_path
):
    done = three if size == 3 else fit(tmp_path / "one", MEMBERS[1:2])
    wanted = alone(tmp_path / "run", MEMBERS[number if size == 3 else 1])
    assert_close(member_of(done, number), wanted.params)
    outcome = done.outcomes[number]
    assert outcome.status == "ok"
    assert outcome.best_value == pytest.approx(wanted.best_value, rel=1e-5)
    assert (outcome.best_epoch, outcome.epochs) == (wanted.best_epoch, 4)
    assert [outcome.best_epoch for outcome in three.outcomes] == [4, 3, 4]


def test_the_times_of_all_members_are_the_time_of_the_population(three):
    shares = [outcome.seconds for outcome in three.outcomes]
    assert min(shares) > 0
    assert sum(shares) == pytest.approx(three.seconds, rel=0.2)


def test_one_that_diverges_does_not_touch_the_bits_of_the_others(three, tmp_path):
    done = fit(tmp_path / "wild", (MEMBERS[0], WILD, MEMBERS[2]))
    wild = done.outcomes[1]
    assert wild.status == "diverged"
    assert wild.epochs < 4
    for number in (0, 2):
        assert case.digest(member_of(done, number)) == case.digest(member_of(three, number))
        assert fate(done.outcomes[number]) == fate(three.outcomes[number])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(member_of(done, 1)))


def test_all_that_diverge_end_the_population(tmp_path):
    done = fit(tmp_path / "run", [WILD] * 3)
    assert {o.status for o in done.outcomes} == {"diverged"}


def test_patience_is_each_member_s_own(three, tmp_path):
    # At the rate of nearly 0 no epoch is better than the first, but for the noise of rounding.
    members = [MEMBERS[0], train.HyperParameters(1e-30, 0.0, 0), MEMBERS[2]]
    done = fit(tmp_path / "run", members, patience=2)
    assert [o.epochs for o in done.outcomes] == [4, 3, 4]
    assert done.outcomes[1].best_epoch == 1
    assert {o.status for o in done.outcomes} == {"ok"}
    saved = checkpoint.read(checkpoint.find(tmp_path / "run"), "state", jax.eval_shape(beginning))
    assert list(saved.states.step) == [24, 18, 24]  # Who is over does not go on.
    assert done.outcomes[0].best_epoch == three.outcomes[0].best_epoch
    assert case.digest(member_of(done, 0)) == case.digest(member_of(three, 0))


def test_the_worse_half_is_taken_out_and_the_others_do_not_notice(three, tmp_path):
    """Of three two go on, of those one; the fates are those of the figures without halving."""
    early = fit(tmp_path / "early", max_epochs=1, halvings=(1,))
    first = [outcome.best_value for outcome in early.outcomes]
    second = fit(tmp_path / "second", max_epochs=2)
    third = [outcome.best_value for outcome in second.outcomes]
    worst = int(np.argmax(first))
    last = min(set(range(3)) - {worst}, key=lambda number: third[number])
    done = fit(tmp_path / "run", halvings=(1, 2))
    wanted = [("behind", 2)] * 3
    wanted[worst], wanted[last] = ("behind", 1), ("ok", 4)
    assert [(o.status, o.epochs) for o in done.outcomes] == wanted
    assert case.digest(member_of(done, last)) == case.digest(member_of(three, last))
    assert fate(done.outcomes[last]) == fate(three.outcomes[last])
    for number in {0, 1, 2} - {last}:
        assert done.outcomes[number].best_value == (first if number == worst else third)[number]
    saved = checkpoint.read(checkpoint.find(tmp_path / "run"), "state", jax.eval_shape(beginning))
    assert list(saved.states.step) == [6 * epochs for _, epochs in wanted]
    # Who is over has ended well, though it would have been taken out with the same epoch.
    assert {outcome.status for outcome in early.outcomes} == {"ok"}


def beginning():
    """Three members at rest."""
    optimizer = train.make_optimizer(OPTIMIZER)
    states = [
        step.init_state(case.TASK, optimizer, jax.random.key(seed), case.batch(0))
        for seed in range(3)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return PopulationState(stacked, jnp.array([True, False, True]), jnp.zeros(3, jnp.int32))


KEYS = [state.make_keys(member.seed)[1] for member in MEMBERS]


def rates_of(members):
    return tuple(
        jnp.asarray([getattr(member, name) for member in members], jnp.float32)
        for name in ("learning_rate", "weight_decay")
    )


def poisoned(number):
    """Two steps whose loss is not finite, for whoever computes it."""
    batch = case.batch(number)
    return {**batch, "y": batch["y"] * np.float32("inf")} if number in (7, 15) else batch


def test_steps_that_are_not_finite_are_left_out_as_the_trainer_of_one_does(tmp_path):
    done = fit(tmp_path / "run", MEMBERS[:1], batches=poisoned, skip_nonfinite=2)
    wanted = alone(tmp_path / "alone", MEMBERS[0], batches=poisoned, skip_nonfinite=2)
    assert_close(member_of(done, 0), wanted.params)
    [outcome] = done.outcomes
    assert (outcome.status, outcome.epochs, outcome.skipped) == ("ok", 4, 2)
    assert outcome.best_value == pytest.approx(wanted.best_value, rel=1e-5)
    [outcome] = fit(tmp_path / "few", MEMBERS[:1], batches=poisoned, skip_nonfinite=1).outcomes
    assert (outcome.status, outcome.epochs, outcome.skipped) == ("diverged", 3, 2)


def test_one_that_diverges_stays_where_it_was(three):
    population = beginning()._replace(active=jnp.array([True, True, True]))
    rates = rates_of((MEMBERS[0], WILD, MEMBERS[2]))
    for number in range(8):
        # The rate rises from 0, so that the first step changes nothing.
        population = train_step_all(
            case.TASK, OPTIMIZER, rates, jnp.stack(KEYS), population, case.batch(number), 0, False
        )
    assert list(population.active) == [True, False, True]
    assert 0 < population.states.step[1] < 8
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(population.states.params))


def test_side_by_side_gives_the_same_numbers():
    """What runs elsewhere than on a CPU; rounding differs, as products are batched."""

    def run(vectorized):
        population = beginning()
        at_rest = case.digest(jax.tree.map(lambda leaf: leaf[1], population.states))
        for number in range(3):
            population = train_step_all(
                case.TASK, OPTIMIZER, rates_of(MEMBERS), jnp.stack(KEYS), population,
                case.batch(number), 0, vectorized,
            )  # fmt: skip
        measured = evaluate_all(
            case.TASK, population.states.params, population.active, case.batch(9), (), vectorized
        )
        assert at_rest == case.digest(jax.tree.map(lambda leaf: leaf[1], population.states))
        assert list(population.states.step) == [3, 0, 3]
        return population, measured

    first, second = run(False), run(True)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_finished_population_returns_at_once_and_another_is_refused(tmp_path):
    first = fit(tmp_path / "run", max_epochs=1)
    again = fit(tmp_path / "run", max_epochs=1, batches=lambda step: case.batch(0))
    assert case.digest(again.params) == case.digest(first.params)
    assert again.outcomes == first.outcomes
    with pytest.raises(ValueError, match=r"with members\.1\.seed=1, not 7: give another workdir"):
        fit(tmp_path / "run", (MEMBERS[0], MEMBERS[1]._replace(seed=7), MEMBERS[2]), max_epochs=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"members": []}, "a population needs a member"),
        (
            {"members": [train.HyperParameters(-1.0, 0.0, 0)]},
            "learning_rate must be positive, got -1.0",
        ),
        ({"members": [train.HyperParameters(1.0, -1.0, 0)]}, "weight_decay must not be negative"),
        ({"halvings": (2, 2)}, r"halvings must be rising epochs, counted from 1, got \(2, 2\)"),
        ({"halvings": (0, 2)}, "halvings must be rising epochs"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be at least 1"),
        ({"monitor": "error", "max_epochs": 1}, "no metric 'error'; there are mse"),
        ({"evaluation": list, "max_epochs": 1}, r"evaluation\(\) gives no batch"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        fit(tmp_path / "run", **changes)


def told_of(done):
    """All of a population that no clock decides."""
    return f"{case.digest(done.params)} {[fate(outcome) for outcome in done.outcomes]}"


def program(workdir, *fault):
    return subprocess.run(
        [sys.executable, __file__, str(workdir), *fault],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.full
def test_killed_at_any_moment_and_run_again_gives_the_same_bits(tmp_path):
    """With a member that diverges in the first epoch, and one that stops in the third."""
    whole = told_of(fit(tmp_path / "whole", TROUBLED, patience=2))
    assert whole.count("diverged") == 1
    killed = program(tmp_path / "cut", "kill", "14")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    told = program(tmp_path / "cut", "term", "16")
    assert told.returncode == 128 + signal.SIGTERM, told.stderr
    assert "step 17 is saved" in told.stderr
    assert "Traceback" not in told.stderr
    ended = program(tmp_path / "cut")
    assert ended.returncode == 0, ended.stderr
    assert "resuming from step 17" in ended.stderr
    assert ended.stdout == f"{whole}\n"


def main(workdir, fault="", when="0"):
    """Trains; `fault` ends this very process as the batch of step `when` is asked for."""

    def asked(number):
        if fault and number == int(when):
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[fault])
        return case.batch(number)

    print(told_of(fit(Path(workdir), TROUBLED, batches=asked, patience=2, save_seconds=0.0)))


if __name__ == "__main__":
    main(*sys.argv[1:])
