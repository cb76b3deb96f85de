import io
import json
import sqlite3
import subprocess
import sys

import pytest

from feedback import DATABASE_NAME, RatingStore
from feedback.__main__ import main


@pytest.fixture
def folder(world, tmp_path):
    """A store with two raters on three pages."""
    made = tmp_path / "store"
    rater = world.rater()
    with RatingStore(made / DATABASE_NAME) as store:
        for answers_as in (rater, rater, world.rater()):
            page = world.page()
            store.add_page(page, world.rows(page, answers_as))
    return made


def first_rater(folder):
    with RatingStore(folder / DATABASE_NAME) as store:
        return next(store.ratings()).rater_id


def rows_in(folder):
    with RatingStore(folder / DATABASE_NAME) as store:
        return list(store.ratings())


def test_stats_counts_for_people_and_for_programs(folder, capsys):
    assert main(["stats", "--store", str(folder)]) == 0
    text, talk = capsys.readouterr()
    assert text.startswith("15 ratings by 2 raters on 3 pages, 15 of them not yet carried")
    assert talk.startswith("Next: python -m feedback export")
    assert main(["stats", "--store", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "rows": 15,
        "raters": 2,
        "pages": 3,
        "outbox_rows": 15,
        "tombstones": 0,
    }


def test_validate_passes_a_healthy_store(folder, capsys):
    assert main(["validate", "--store", str(folder)]) == 0
    assert capsys.readouterr().out == "15 rows checked, 0 faults.\n"


def test_validate_lists_all_faults_and_exits_2(folder, capsys):
    connection = sqlite3.connect(folder / DATABASE_NAME)
    connection.execute("UPDATE event SET body = '{}' WHERE seq IN (4, 9)")
    connection.commit()
    connection.close()
    assert main(["validate", "--store", str(folder)]) == 2
    text, talk = capsys.readouterr()
    assert "Row 4: `rating_id` is missing." in text
    assert "Row 9: `app_version` is missing." in text
    assert "must have no faults, got 56" in talk
    assert main(["validate", "--store", str(folder), "--json"]) == 2
    result = json.loads(capsys.readouterr().out)
    assert result["rows"] == 15
    assert len(result["problems"]) == 56


def test_export_without_a_file_writes_lines_to_stdout(folder, capsys):
    assert main(["export", "--store", str(folder)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [row.as_record() for row in rows_in(folder)]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_export_takes_the_format_from_the_file_s_ending(folder, tmp_path, capsys, kind):
    out = tmp_path / f"ratings.{kind}"
    assert main(["export", "--store", str(folder), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 15, "out": str(out), "format": kind}
    assert (out.read_bytes()[:4] == b"PAR1") is (kind == "parquet")
    assert main(["export", "--store", str(folder), "--out", str(out)]) == 0
    text, talk = capsys.readouterr()
    assert text == ""
    assert talk.startswith(f"15 ratings written to {out}.")


@pytest.mark.parametrize(
    "options",
    [
        ["--out", "ratings.csv"],
        ["--out", "ratings"],
        ["--out", DATABASE_NAME],
        ["--out", "ratings.jsonl", "--format", "parquet"],
        ["--format", "parquet"],
        ["--json"],
        ["--out", "no/such/folder/ratings.jsonl"],
    ],
)
def test_an_export_that_cannot_be_meant_is_refused(folder, capsys, monkeypatch, options):
    monkeypatch.chdir(folder)
    before = (folder / DATABASE_NAME).read_bytes()
    assert main(["export", "--store", ".", *options]) == 2
    text, talk = capsys.readouterr()
    assert text == ""
    assert " must " in talk
    assert [file.name for file in folder.iterdir()] == [DATABASE_NAME]
    assert (folder / DATABASE_NAME).read_bytes() == before


@pytest.mark.parametrize(("typed", "is_erased"), [("yes\n", True), ("y\n", False), ("", False)])
def test_erase_asks_and_takes_only_yes(folder, capsys, monkeypatch, typed, is_erased):
    rater = first_rater(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    code = main(["erase", "--store", str(folder), "--rater", rater])
    text, talk = capsys.readouterr()
    assert f"Erase everything rater {rater} answered?" in talk
    assert text == ""
    assert code == (0 if is_erased else 2)
    assert len(rows_in(folder)) == (5 if is_erased else 15)


def test_erase_with_yes_does_not_ask(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    rater = first_rater(folder)
    assert main(["erase", "--store", str(folder), "--rater", rater, "--yes", "--json"]) == 0
    text, talk = capsys.readouterr()
    assert json.loads(text) == {"rows": 10}
    assert "10 ratings of this rater were erased" in talk
    assert rater not in {row.rater_id for row in rows_in(folder)}
    assert rater.encode() not in (folder / DATABASE_NAME).read_bytes()


def test_erase_refuses_what_is_no_rater_id(folder, capsys):
    assert main(["erase", "--store", str(folder), "--rater", "Ada", "--yes"]) == 2
    talk = capsys.readouterr().err
    assert "`--rater` must be 32" in talk
    assert "Ada" not in talk
    assert len(rows_in(folder)) == 15


@pytest.mark.parametrize("command", ["stats", "validate", "export"])
def test_a_folder_without_a_store_is_refused_and_stays_as_it_is(tmp_path, capsys, command):
    assert main([command, "--store", str(tmp_path / "typo")]) == 2
    assert "There must be a store of ratings" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [["stats"], ["fit", "--store", "x"], [], ["stats", "--store"]])
def test_a_wrong_command_line_exits_2(capsys, options):
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    assert "usage: python -m feedback" in capsys.readouterr().err


def test_the_module_runs_and_returns_its_exit_code(folder):
    command = [sys.executable, "-m", "feedback", "stats", "--json", "--store"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["rows"]) == (0, 15)
    (folder / DATABASE_NAME).write_bytes(b"no database, but as long as a header would be" * 40)
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "must be a whole SQLite file" in done.stderr
    assert "Traceback" not in done.stderr
