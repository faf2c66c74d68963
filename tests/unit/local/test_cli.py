"""The commands say what is wrong in one sentence and end with 1."""

import errno
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.local.cli import app
from services.local.commands.campaigns import read_recipe
from services.local.directory import DataDirectory
from services.local.errors import LocalError

RUNNER = CliRunner()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["status"], "Headwater does not run on"),
        (["logs", "pool"], "There is no log of 'pool'"),
        (["demo", "--recipe", "huge"], "There is no demo 'huge'; there are: tiny, smollm2."),
        (["questions", "mine"], "start it with `headwater up`"),
        (["report", "mine"], "start it with `headwater up`"),
        (["retract", "--reason", "x"], "either by their ids or by --campaign and --source"),
        (["retract", "00000000-0000-0000-0000-000000000001"], "needs its reason"),
        (["campaign", "create", "absent.toml"], "The recipe absent.toml cannot be read: No such file or directory."),
        (["up", "--model", "/no/such/model"], "There is no model directory '/no/such/model'"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, words: list[str], sentence: str):
    result = RUNNER.invoke(app, words, env={"HEADWATER_DATA_DIR": str(tmp_path)})
    assert result.exit_code == 1
    assert result.stderr.startswith("headwater: ")
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_a_report_is_of_a_campaign_or_of_a_run():
    env = {"HEADWATER_GATEWAY_URL": "http://127.0.0.1:1", "HEADWATER_API_KEY": "hw_key"}
    result = RUNNER.invoke(app, ["report"], env=env)
    assert (result.exit_code, result.stderr) == (1, "headwater: Name a campaign, or a run with --run, to report on.\n")


def test_down_without_a_stack_is_no_error(tmp_path: Path):
    result = RUNNER.invoke(app, ["down", "--data-dir", str(tmp_path)])
    assert (result.exit_code, "does not run" in result.stdout) == (0, True)


def test_a_recipe_that_is_not_toml_is_named(tmp_path: Path):
    (tmp_path / "broken.toml").write_text("seed = = 1")
    result = RUNNER.invoke(app, ["campaign", "create", str(tmp_path / "broken.toml"), "--data-dir", str(tmp_path)])
    assert "broken.toml is not TOML: Invalid value (at line 1, column 8)" in result.stderr


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('name = "own"\nseed = 1\n', "own"),
        ("seed = 1\n[rl]\nsteps = 3", "file"),
        ('# name = "no"\n\'name\' = "own"\nseed=1 # one\n\n[model]\nbase = "x"\nseed = 2\n', "own"),
        ("minimum_train_questions = 9\n [model]\n name = 1", "file"),
        ("", "file"),
    ],
)
def test_a_recipe_is_sent_as_it_is_but_for_its_name_and_seed(tmp_path: Path, content: str, named: str):
    path = tmp_path / "file.toml"
    path.write_text(content)
    own = tomllib.loads(content)
    assert tomllib.loads(read_recipe(path)) == own | {"name": named}
    other = 'an "other" \\ näme'
    assert tomllib.loads(read_recipe(path, other, 7)) == own | {"name": other, "seed": 7}
    assert [line for line in content.split("\n") if line not in read_recipe(path, other)] == [
        line for line in content.split("\n") if "own" in line
    ]


@pytest.mark.parametrize(
    "content",
    [
        'note = """\nseed = 1\n"""\n',
        'name = """\nown"""\n',
        "cuts = [\n[1], [2],\n]\nseed = 1\n",
    ],
)
def test_a_recipe_whose_keys_cannot_be_replaced_by_line_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "file.toml"
    path.write_text(content)
    with pytest.raises(LocalError, match=r"write 'name' and 'seed' at the top of the file"):
        read_recipe(path, "other", 7)


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/questions")

    monkeypatch.setattr(DataDirectory, "at", full)
    result = RUNNER.invoke(app, ["status", "--data-dir", str(tmp_path)])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "headwater: The disk is full (/data/questions): free some of it" in result.stderr
