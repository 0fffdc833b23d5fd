"""Reproduction: equal effort, the plan, and what is left after kills and failures."""

import jax
import pytest

from experiments.runner.experiment import count
from experiments.tasks.sequence import data, task
from experiments.tuning import effort, matrix


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


@pytest.mark.parametrize("name", matrix.TASKS)
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
        assert configs[0].examples and configs[0].evaluated in (0, *range(256, 10**6))


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
