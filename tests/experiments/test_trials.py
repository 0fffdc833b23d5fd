"""Trials: runs of `--trial` that end in numbers that are not finite."""

import pytest

from experiments import synthetic
from experiments.runner import launch
from experiments.runner.flags import LaunchOptions
from experiments.tasks import registry
from experiments.tuning import jobs


@pytest.mark.full
def test_a_trial_that_diverges_in_validation_is_done_and_never_wins(tmp_path):
    """Every step is finite. Such a trial failed each time, and its line could not go on."""
    config = synthetic.Config(
        "adding", layers="gru", features=4, steps=8, examples=8, evaluated=8, batch_size=8,
        max_epochs=1, schedule="constant", learning_rate=1e38,
    )  # fmt: skip
    prepared = registry.load("synthetic").prepare(config, None)
    options = LaunchOptions(trial=True)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        launch.train_run("synthetic", config, prepared, tmp_path, options)
    assert not (tmp_path / "nonfinite.jsonl").exists()
    job = jobs.Job((), tmp_path, 0.25, jobs._plain(config))
    assert jobs._figure(job) == float("inf")
