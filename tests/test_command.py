"""The command ``surnn-jax``, and paths as users write them."""

import os
import subprocess
import sys

import pytest

from data import cli, paths
from experiments.runner import launch
from surnn_jax import command

RUN = [sys.executable, "-c", "from surnn_jax.command import main; main()"]


def test_it_runs_the_programs_of_the_clone_from_any_folder(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(command.ROOT)}
    done = subprocess.run(
        [*RUN, "tables", "--suite=music", "--help"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "python -m experiments.tables" in done.stdout
    assert "--results" in done.stdout
    assert {"music", "lra", "reproduce", "data.prepare"} <= set(command.programs())


def test_a_wrong_program_is_told_the_nearest():
    with pytest.raises(SystemExit, match="unknown program 'musik'; did you mean 'music'"):
        command.main(["musik"])


def test_without_a_clone_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="clone the repository"):
        command.main(["music"])


@pytest.mark.parametrize("address", ["gs://bucket/x", "s3://b", "hdfs:/x", "https://a.b/c"])
def test_a_remote_address_is_refused(address):
    with pytest.raises(ValueError, match="a local file or folder is needed"):
        cli.local_path(address)


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    assert cli.local_path("~/data") == str(tmp_path / "data")
    assert paths.folders("~/data") == [tmp_path / "data"]
    monkeypatch.setenv(paths.DATA_VARIABLE, "~/data")
    assert paths.folders()[0] == tmp_path / "data"
    monkeypatch.setenv(paths.CACHE_VARIABLE, "~/cache")
    assert paths.cache_folder() == tmp_path / "cache"


def test_ctrl_c_is_no_traceback():
    code = "from data import cli\ndef main(): raise KeyboardInterrupt\ncli.run(main)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=command.ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "stopped; what was saved before is whole\n")


def test_a_picture_that_cannot_be_drawn_ends_no_run(capsys):
    with launch.drawing("curves.png"):
        raise RuntimeError("no fonts\nhere")
    assert capsys.readouterr().err.startswith(
        "warning: curves.png could not be drawn: RuntimeError: no fonts here; "
    )


def test_figures_ignore_the_back_end_of_a_notebook(tmp_path):
    code = (
        "from experiments.analysis import style\n"
        f"with style.sheet(2, 2, 'x', {str(tmp_path / 'x.png')!r}): pass"
    )
    environment = {**os.environ, "MPLBACKEND": "no such back end"}
    subprocess.run([sys.executable, "-c", code], cwd=command.ROOT, env=environment, check=True)
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_a_path_flag_of_a_program_is_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.tables", "--suite=music", "--results=gs://bucket/x"],
        cwd=command.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "mount the remote one" in done.stderr
    assert not (command.ROOT / "gs:").exists()
