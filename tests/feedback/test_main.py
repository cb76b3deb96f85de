import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta

import pyarrow.parquet as pq
import pytest

from feedback import DATABASE_NAME, RatingStore, new_id
from feedback.__main__ import main

ANNA = "hf_anna"


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


def test_stats_say_what_raters_have_in_common_only_when_asked(simulated, capsys):
    store, _ = simulated
    plain, _ = run_json(capsys, "stats", "--store", store)
    assert "population" not in plain
    asked, _ = run_json(capsys, "stats", "--store", store, "--population")
    found = asked.pop("population")["embedded@simulated"]
    assert asked == plain
    assert (found["n_raters"], found["weight"] <= 21) == (21, True)
    assert 0.3 < found["mean"] < 0.8
    assert main(["stats", "--store", str(store), "--population"]) == 0
    text, talk = capsys.readouterr()
    assert "embedded@simulated: 21 consenting raters prefer 0." in text
    assert "publish none of them" in talk


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
    assert "must have no faults, got 58" in talk
    assert main(["validate", "--store", str(folder), "--json"]) == 2
    result = json.loads(capsys.readouterr().out)
    assert result["rows"] == 15
    assert len(result["problems"]) == 58


def test_export_without_a_file_writes_lines_to_stdout(folder, capsys):
    assert main(["export", "--store", str(folder)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [row.as_record() for row in rows_in(folder)]
    assert main(["export", "--store", str(folder), "--format", "csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["rating_id"] for row in table] == [row.rating_id for row in rows_in(folder)]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
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
        ["--out", "ratings.txt"],
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


def test_an_export_that_nobody_reads_to_its_end_ends_quietly(folder):
    with RatingStore(folder / DATABASE_NAME) as store:
        rows = list(store.ratings())
        store.add_rows([replace(rows[0], rating_id=new_id()) for _ in range(500)])
    command = [sys.executable, "-m", "feedback", "export", "--store", str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as program:
        assert program.stdout.readline()
        program.stdout.close()
        talk = program.stderr.read()
    assert (program.returncode, talk) == (0, b"")


@pytest.mark.parametrize(("typed", "is_erased"), [("yes\n", True), ("y\n", False), ("", False)])
def test_erase_asks_and_takes_only_yes(folder, capsys, monkeypatch, typed, is_erased):
    rater = first_rater(folder)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
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
    record = json.loads(text)
    assert record["rows"] == record["receipt"]["rows_local"] == 10
    assert rater not in text
    assert "10 ratings of this rater were erased" in talk
    assert "run `publish` again" in talk
    assert record["receipt"]["number"] in talk
    assert rater not in {row.rater_id for row in rows_in(folder)}
    assert rater.encode() not in (folder / DATABASE_NAME).read_bytes()


def test_erase_refuses_what_is_no_rater_id(folder, capsys):
    assert main(["erase", "--store", str(folder), "--rater", "Ada", "--yes"]) == 2
    talk = capsys.readouterr().err
    assert "`--rater` must be 32" in talk
    assert "Ada" not in talk
    assert len(rows_in(folder)) == 15


@pytest.mark.parametrize(
    "options",
    [
        ["stats"],
        ["validate"],
        ["export"],
        ["erase", "--rater", "a" * 32, "--yes"],
        ["sync", "--repo-id", "anna/ratings"],
        ["fit", "--out", "preferences.json"],
        ["publish", "--repo-id", "anna/public", "--dry-run"],
    ],
)
def test_a_folder_without_a_store_is_refused_and_stays_as_it_is(tmp_path, capsys, options):
    assert main([*options, "--store", str(tmp_path / "typo")]) == 2
    assert "There must be a store of ratings" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        ["stats"],
        ["fit", "--store", "x"],
        ["fit", "--out", "y"],
        ["rate", "--store", "x"],
        ["sync", "--store", "x"],
        ["sync", "--store", "x", "--repo-id", "a/b", "--bucket", "a/b"],
        ["simulate", "--raters", "many"],
        [],
        ["stats", "--store"],
    ],
)
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


# --- rate ------------------------------------------------------------------------------------


def piped(monkeypatch, *lines):
    raw = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw.encode())))


LINE = {"strength": 0.6, "response": 2}


def test_rate_prints_the_id_of_every_stored_line_and_names_the_bad_ones(
    tmp_path, capsys, monkeypatch
):
    store = tmp_path / "new" / "store"
    piped(monkeypatch, LINE, "nonsense", LINE | {"rating_id": "7" * 32}, LINE | {"strength": 2})
    assert main(["rate", "--stdin", "--store", str(store)]) == 2
    text, talk = capsys.readouterr()
    assert text.split() == [row.rating_id for row in rows_in(store)]
    assert text.split()[1] == "7" * 32
    assert "Line 2: a line must be one JSON object" in talk
    assert "Line 4: `strength` must be" in talk
    assert "2 ratings stored, 2 lines refused" in talk
    piped(monkeypatch, LINE | {"rating_id": "7" * 32})
    assert main(["rate", "--stdin", "--store", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rating_id": "7" * 32}
    assert len(rows_in(store)) == 2


def test_an_id_is_printed_at_once_and_outlives_the_program(tmp_path):
    command = [sys.executable, "-m", "feedback", "rate", "--stdin", "--store", str(tmp_path)]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=buffered, **pipes) as program:
        # Ends the wait for an id that is not printed.
        deadline = threading.Timer(30, program.kill)
        deadline.start()
        acknowledged = []
        for _ in range(3):
            program.stdin.write(json.dumps(LINE).encode() + b"\n")
            program.stdin.flush()
            acknowledged.append(program.stdout.readline().decode().strip())
        deadline.cancel()
        program.send_signal(signal.SIGKILL)
    assert all(acknowledged)
    assert [row.rating_id for row in rows_in(tmp_path)] == acknowledged


# --- simulate and fit ------------------------------------------------------------------------


def run_json(capsys, *options):
    code = main([*map(str, options), "--json"])
    text, talk = capsys.readouterr()
    assert code == 0, talk
    return json.loads(text), talk


def test_simulate_prints_how_well_tastes_are_found(capsys):
    options = ["simulate", "--raters", "60", "--answers", "3", "--seed", "5"]
    result, _ = run_json(capsys, *options)
    assert len(result["rmse"]) == len(result["coverage90"]) == 4
    assert result["rmse"][3] < result["rmse"][0]
    assert main(options) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["answers", "rmse", "coverage90"]
    assert len(table) == 5
    again, _ = run_json(capsys, *options, "--response", "binary", "--select", "random")
    assert again["rmse"] != result["rmse"]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """A store of 21 simulated raters and the links of 3 subjects to them, made once."""
    made = tmp_path_factory.mktemp("crowd")
    options = ["--raters", "21", "--answers", "3", "--seed", "1", "--subjects", "3"]
    links = str(made / "links.csv")
    assert (
        main(["simulate", "--store", str(made / "store"), *options, "--links-out", links, "--json"])
        == 0
    )
    return made


@pytest.fixture
def simulated(crowd, tmp_path):
    """A copy of the crowd's store and links."""
    shutil.copytree(crowd, tmp_path, dirs_exist_ok=True)
    return tmp_path / "store", tmp_path / "links.csv"


def test_from_simulated_ratings_to_preferences_in_two_commands(simulated, tmp_path, capsys):
    store, links = simulated
    out = tmp_path / "preferences.json"
    command = ["fit", "--store", store, "--links", links, "--out", out, "--floor", "0"]
    result, talk = run_json(capsys, *command)
    record = json.loads(out.read_text())
    assert sorted(record["subjects"]) == ["subject-0001", "subject-0002", "subject-0003"]
    assert record["population"]["release"].startswith("dp-eps1-")
    assert record["population"]["epsilon"] == 1.0
    assert result["population"] == record["population"]
    assert (result["subjects"], result["unknown_raters"]) == (3, 0)
    assert result["own"] == sum(s["source"] == "own" for s in record["subjects"].values())
    assert "Next: python -m privacy_core revise" in talk
    again, _ = run_json(capsys, *command)
    assert again["population"] == result["population"]
    new, _ = run_json(capsys, *command, "--new-release", "--epsilon", "0.5")
    assert new["population"]["epsilon"] == 1.5
    assert new["population"]["release"].startswith("dp-eps0.5-")


def test_simulating_is_repeatable_and_a_seed_is_not_stored_twice(tmp_path, capsys):
    stores = [tmp_path / "store", tmp_path / "twin"]
    options = ["--raters", 2, "--answers", 3, "--seed", 1]
    for store in stores:
        links = ["--subjects", 3, "--links-out", tmp_path / f"{store.name}.csv"]
        made, _ = run_json(capsys, "simulate", "--store", store, *options, *links)
        assert made == {"rows": 30, "raters": 2, "subjects": 3}
    first, second = map(rows_in, stores)
    # Two raters for three subjects: the first decides for two of them.
    table = (tmp_path / "store.csv").read_text()
    assert table == (tmp_path / "twin.csv").read_text()
    assert table.count(first[0].rater_id) == 2
    assert [row.as_json() for row in first] == [row.as_json() for row in second]
    assert main(["simulate", "--store", str(stores[0]), *map(str, options)]) == 2
    assert "answered once" in capsys.readouterr().err


def test_links_to_raters_without_ratings_are_counted(simulated, tmp_path, capsys):
    store, links = simulated
    links.write_text(links.read_text() + f"{new_id()},Ada\n")
    result, talk = run_json(
        capsys, "fit", "--store", store, "--links", links, "--out", tmp_path / "p.json"
    )
    assert (result["subjects"], result["unknown_raters"]) == (4, 1)
    assert "1 rater of" in talk
    assert "without a rating here" in talk


def test_rows_that_do_not_count_are_counted(simulated, tmp_path, capsys):
    store, links = simulated
    with RatingStore(store / DATABASE_NAME) as log:
        rows = list(log.ratings())
        linked = next(iter(csv.DictReader(io.StringIO(links.read_text()))))["rater_id"]
        mine = next(r for r in rows if r.rater_id == linked and r.response_type == "jar5")
        other = replace(mine, rating_id=new_id(), response=(mine.response + 1) % 5)
        by_program = replace(rows[0], rating_id=new_id(), rater_id=new_id(), client="api")
        log.add_rows([other, by_program])
    result, talk = run_json(
        capsys, "fit", "--store", store, "--links", links, "--out", tmp_path / "p.json"
    )
    assert result["left_out"] == {
        "duplicate": 0,
        "contradictory": 2,
        "incomplete": 0,
        "by_programs": 1,
    }
    assert result["population"]["n_raters"] == 21
    assert "2 rows of linked raters left out: they contradict each other" in talk
    assert "1 row sent by programs (client api)" in talk


def test_a_release_that_is_mostly_noise_is_called_so(simulated, tmp_path, capsys):
    fit = ["fit", "--store", simulated[0], "--out", tmp_path / "p.json"]
    _, talk = run_json(capsys, *fit)
    assert "mostly noise" not in talk
    _, talk = run_json(capsys, *fit, "--new-release", "--epsilon", "0.5")
    assert "mostly noise: raters times ε should be at least 20, got 10.5" in talk


def test_of_two_models_the_named_one_is_fitted(simulated, tmp_path, capsys):
    store, links = simulated
    with RatingStore(store / DATABASE_NAME) as log:
        rows = list(log.ratings())
        for_two = [
            replace(row, rating_id=new_id(), page_id=f"{row.page_id[:-4]}ffff", model_revision="2")
            for row in rows
        ]
        log.add_rows(for_two)
    fit = ["fit", "--store", store, "--links", links, "--out", tmp_path / "p.json"]
    assert main([*map(str, fit)]) == 2
    assert "embedded@2 (315 rows), embedded@simulated (315 rows)" in capsys.readouterr().err
    two, _ = run_json(capsys, *fit, "--model-version", "2")
    one, _ = run_json(capsys, *fit, "--model-version", "embedded@simulated")
    assert (one["model_version"], two["model_version"]) == ("embedded@simulated", "embedded@2")
    # Two releases were drawn, one about each model, and both count.
    assert (two["population"]["epsilon"], one["population"]["epsilon"]) == (1.0, 2.0)
    assert one["population"]["release"] != two["population"]["release"]


@pytest.mark.parametrize("name", ["releases.json", "links.json", "account.json"])
def test_a_fit_is_not_written_over_what_it_needs(simulated, tmp_path, capsys, monkeypatch, name):
    store, links = simulated
    monkeypatch.chdir(store)
    shutil.copy(links, store / "links.json")
    fit = ["fit", "--store", ".", "--links", "links.json", "--account", "account.json"]
    assert main([*fit[:-2], "--out", "p.json"]) == 0
    shutil.copy(store / "releases.json", store / "account.json")
    before = (store / name).read_bytes()
    (tmp_path / "link").symlink_to(store)
    for out in (name, str(tmp_path / "link" / name)):
        capsys.readouterr()
        assert main([*fit, "--out", out]) == 2
        assert "`--out` must be another file than" in capsys.readouterr().err
    assert (store / name).read_bytes() == before


def test_few_raters_get_the_public_default(tmp_path, capsys):
    store = tmp_path / "store"
    run_json(capsys, "simulate", "--store", store, "--raters", 3, "--answers", 1)
    result, talk = run_json(capsys, "fit", "--store", store, "--out", tmp_path / "p.json")
    assert result["population"] == {
        "strength": 0.8,
        "sd": 0.294392,
        "n_raters": 3,
        "epsilon": 0.0,
        "release": None,
    }
    assert "the public default" in talk
    assert not (store / "releases.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epsilon", "0"], "`epsilon` must be"),
        (["--quantile", "1"], "`quantile` must be"),
        (["--floor", "nan"], "`floor` must be"),
        (["--links", "no.csv"], "`links` must be"),
        (["--model-version", "other"], "embedded@simulated (315 rows)"),
        (["--revision", "main"], "`--revision` must be given with `--dataset`"),
        (["--out", "no/such/folder/p.json"], "must be a file in a folder"),
        (["--out", "ratings.sqlite3"], "`--out` must end in .json"),
    ],
)
def test_a_fit_that_cannot_be_meant_is_refused(simulated, tmp_path, capsys, options, message):
    store, _ = simulated
    out = tmp_path / "preferences.json"
    assert main(["fit", "--store", str(store), "--out", str(out), *options]) == 2
    text, talk = capsys.readouterr()
    assert text == ""
    assert message in talk
    assert not out.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--subjects", "3"],
        ["--links-out", "links.csv"],
        ["--subjects", "3", "--links-out", "links.csv"],
        ["--store", "s", "--response", "binary"],
        ["--store", "s", "--raters", "0"],
        ["--store", "s", "--photos", "0"],
        ["--photos", "0"],
        ["--answers", "-1"],
        ["--consent-scope", "aggregate"],
        ["--method", "blur"],
        ["--model-revision", "2"],
        ["--store", "s", "--subjects", "3", "--links-out", "s/ratings.sqlite3"],
        ["--store", "s", "--subjects", "3", "--links-out", "no/such/links.csv"],
        ["--store", "s", "--subjects", "names.csv", "--links-out", "names.csv"],
    ],
)
def test_a_simulation_that_cannot_be_meant_is_refused(tmp_path, capsys, monkeypatch, options):
    names = tmp_path / "names.csv"
    names.write_text("Ada\nBo\n")
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", *options]) == 2
    assert " must " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [names]
    assert names.read_text() == "Ada\nBo\n"


# --- The Hub ---------------------------------------------------------------------------------


@pytest.fixture
def online(hub, monkeypatch):
    """The program may reach the test Hub as anna."""
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", ANNA)
    return hub


def test_sync_carries_everything_and_restores_it_on_an_empty_disk(online, folder, tmp_path, capsys):
    options = ["--repo-id", "anna/ratings"]
    health, _ = run_json(capsys, "sync", "--store", folder, *options)
    assert (health["outbox_rows"], health["in_remote_rows"]) == (0, 15)
    assert online.repo("anna/ratings").is_private
    empty = tmp_path / "empty"
    assert main(["sync", "--store", str(empty), "--restore", *options]) == 0
    assert capsys.readouterr().out
    assert {row.rating_id for row in rows_in(empty)} == {row.rating_id for row in rows_in(folder)}


def test_a_repository_that_vanished_is_not_made_anew(online, folder, capsys):
    options = ["sync", "--store", str(folder), "--repo-id", "anna/ratings"]
    assert main(options) == 0
    from huggingface_hub import HfApi

    HfApi(endpoint=online.endpoint, token=ANNA).delete_repo("anna/ratings", repo_type="dataset")
    capsys.readouterr()
    assert main(options) == 2
    assert "must exist" in capsys.readouterr().err


def test_without_a_token_sync_is_refused_and_keeps_the_rows(hub, folder, capsys, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert main(["sync", "--store", str(folder), "--repo-id", "anna/ratings"]) == 2
    assert "token must have the right" in capsys.readouterr().err
    assert len(rows_in(folder)) == 15


def test_erase_reaches_the_remote_and_says_when_it_did_not(online, folder, tmp_path, capsys):
    remote = ["--repo-id", "anna/ratings"]
    rater = first_rater(folder)
    assert main(["sync", "--store", str(folder), *remote]) == 0
    online.fail("commit", "503", count=20)
    erase = ["erase", "--store", str(folder), "--rater", rater, "--yes", *remote]
    capsys.readouterr()
    assert main(erase) == 2
    assert "not cleared yet" in capsys.readouterr().err
    online.calm()
    result, _ = run_json(capsys, *erase)
    assert result["rows"] == 0
    assert main(["sync", "--store", str(tmp_path / "empty"), "--restore", *remote]) == 0
    assert rater not in {row.rater_id for row in rows_in(tmp_path / "empty")}
    assert len(rows_in(tmp_path / "empty")) == 5


@pytest.mark.usefixtures("online")
def test_erase_without_the_remote_says_that_it_has_a_copy(folder, capsys):
    assert main(["sync", "--store", str(folder), "--repo-id", "anna/ratings"]) == 0
    assert main(["erase", "--store", str(folder), "--rater", first_rater(folder), "--yes"]) == 0
    assert "are in a remote too" in capsys.readouterr().err


def test_fit_from_a_revision_is_fit_from_the_store_it_was_carried_from(
    online, simulated, tmp_path, capsys
):
    store, links = simulated
    assert main(["sync", "--store", str(store), "--repo-id", "anna/ratings"]) == 0
    sha = online.repo("anna/ratings").head.id
    out = tmp_path / "far.json"
    source = ["--dataset", "anna/ratings", "--revision", sha]
    account = ["--account", tmp_path / "releases.json"]
    capsys.readouterr()
    far, _ = run_json(capsys, "fit", *source, *account, "--links", links, "--out", out)
    assert far["feedback_revision"] == sha
    here = tmp_path / "here.json"
    near, _ = run_json(
        capsys, *("fit", "--store", store, "--links", links, "--out", here), *account
    )
    assert near["population"] == far["population"]
    assert json.loads(out.read_text())["subjects"] == json.loads(here.read_text())["subjects"]
    assert main(["fit", *source[:3], "0" * 40, "--out", str(out)]) == 2
    assert "`revision` must be a commit" in capsys.readouterr().err
    assert main(["fit", "--dataset", "anna/ratings", "--out", str(out)]) == 2
    assert "`--revision` must be given" in capsys.readouterr().err


def test_a_release_from_a_dataset_is_accounted_for_where_it_is_said(
    online, simulated, tmp_path, capsys
):
    assert main(["sync", "--store", str(simulated[0]), "--repo-id", "anna/ratings"]) == 0
    sha = online.repo("anna/ratings").head.id
    out = tmp_path / "preferences.json"
    fit = ["fit", "--dataset", "anna/ratings", "--revision", sha, "--out", str(out)]
    assert main(fit) == 2
    assert "`--account` must name a file with `--dataset`" in capsys.readouterr().err
    assert list(tmp_path.glob("*.json")) == []


def test_a_dataset_about_few_raters_needs_no_account(online, tmp_path, capsys):
    store = tmp_path / "few"
    run_json(capsys, "simulate", "--store", store, "--raters", 3, "--answers", 1)
    assert main(["sync", "--store", str(store), "--repo-id", "anna/ratings"]) == 0
    fit = ["fit", "--dataset", "anna/ratings", "--revision", "main", "--out", tmp_path / "p.json"]
    capsys.readouterr()
    result, _ = run_json(capsys, *fit)
    assert result["population"]["release"] is None
    assert result["feedback_revision"] == online.repo("anna/ratings").head.id
    assert main([*map(str, fit), "--new-release"]) == 2
    assert "`--account` must name a file" in capsys.readouterr().err


def test_no_release_is_drawn_from_rows_that_may_have_been_withdrawn(
    online, simulated, tmp_path, capsys
):
    store, _ = simulated
    assert main(["sync", "--store", str(store), "--repo-id", "anna/ratings"]) == 0
    repo = online.repo("anna/ratings")
    old = repo.head.id
    foreign = "data/ratings/ym=2026-11/foreign.parquet"
    repo.write({foreign: b"PAR1 not ours"})
    account = tmp_path / "releases.json"
    fit = ["fit", "--dataset", "anna/ratings", "--account", str(account)]
    out = ["--out", str(tmp_path / "p.json")]
    capsys.readouterr()
    for revision, gap in ((old, "not the newest"), ("main", "1 file that cannot be read")):
        assert main([*fit, "--revision", revision, *out]) == 2
        assert gap in capsys.readouterr().err
        assert not account.exists()
    # What was drawn before may be used: it costs nothing and says nothing new.
    kept, talk = run_json(
        capsys, *("fit", "--store", store, "--account", account, "--out", tmp_path / "q.json")
    )
    assert "known here after `sync` only" in talk
    result, talk = run_json(capsys, *fit, "--revision", "main", *out)
    assert result["population"] == kept["population"]
    assert f"{foreign} was left out" in talk


@pytest.fixture
def publishable(world, tmp_path):
    """A store with twelve raters who agreed to publish their row."""
    made = tmp_path / "publishable"
    with RatingStore(made / DATABASE_NAME) as store:
        store.add_rows(
            [
                replace(
                    world.rating(consent_scope="publish_row"), rating_id=new_id(), rater_id=new_id()
                )
                for _ in range(12)
            ]
        )
    return made


def test_a_dry_run_counts_and_sends_nothing(online, publishable, capsys):
    options = ["publish", "--store", publishable, "--repo-id", "anna/public", "--dry-run"]
    result, talk = run_json(capsys, *options)
    assert result == {
        "repo_id": "anna/public",
        "revision": None,
        "rows": 12,
        "raters": 12,
        "cells": 1,
        "from_programs": 0,
        "without_consent": 0,
        "in_small_cells": 0,
        "releases": 0,
    }
    assert "Nothing was sent" in talk
    assert main([str(option) for option in options]) == 0
    assert "12 rows by 12 raters in 1 cell and 0 population releases" in capsys.readouterr().out
    assert online.requests() == []


def test_a_dry_run_of_a_carried_store_says_that_waiting_rows_may_have_been_copied(
    online, publishable, world, capsys
):
    assert main(["sync", "--store", str(publishable), "--repo-id", "anna/ratings"]) == 0
    head = online.repo("anna/ratings").head.id
    with RatingStore(publishable / DATABASE_NAME) as store:
        store.add_rows([replace(world.rating(), rating_id=new_id(), rater_id=new_id())])
    capsys.readouterr()
    options = ["publish", "--store", publishable, "--repo-id", "anna/public", "--dry-run"]
    result, talk = run_json(capsys, *options)
    assert (result["revision"], result["rows"]) == (None, 12)
    assert online.repo("anna/ratings").head.id != head
    assert "Nothing was sent" not in talk
    assert "Nothing was published" in talk
    assert "may have been copied to the private dataset anna/ratings" in talk
    assert ("dataset", "anna/public") not in online.repos


@pytest.mark.usefixtures("online")
def test_a_dry_run_refuses_what_publishing_would_refuse(publishable, tmp_path, capsys):
    options = ["publish", "--store", str(publishable), "--repo-id", "anna/public", "--dry-run"]
    assert main([*options, "--private", "Anna/Public"]) == 2
    assert "must not be the private one" in capsys.readouterr().err
    assert main([*options, "--variants", str(tmp_path / "none")]) == 2
    assert "`variants` must be a folder" in capsys.readouterr().err
    assert main([*options[:4], "no name", "--dry-run"]) == 2
    assert "must be NAME/REPO" in capsys.readouterr().err


def test_publish_asks_and_then_replaces_the_public_dataset(
    online, publishable, capsys, monkeypatch
):
    options = ["publish", "--store", str(publishable), "--repo-id", "anna/public"]
    piped(monkeypatch, "no")
    assert main(options) == 2
    assert "Publish 12 rows of 12 raters as anna/public" in capsys.readouterr().err
    assert online.requests() == []
    result, _ = run_json(capsys, *options, "--yes")
    repo = online.repo("anna/public")
    assert result["revision"] == repo.head.id
    assert not repo.is_private


@pytest.mark.usefixtures("online")
def test_publish_refuses_the_private_repository(publishable, capsys):
    options = ["publish", "--store", str(publishable), "--repo-id", "anna/ratings", "--yes"]
    assert main([*options, "--private", "anna/ratings"]) == 2
    assert "must not be the private one" in capsys.readouterr().err
    assert main(["sync", "--store", str(publishable), "--repo-id", "anna/ratings"]) == 0
    assert main(options) == 2
    assert "must not be the private one" in capsys.readouterr().err


PUBLISH = ["publish", "--repo-id", "anna/public", "--yes"]
SYNC = ["sync", "--repo-id", "anna/ratings"]


def n_public(online):
    """How many rows the public repository has now."""
    repo = online.repo("anna/public")
    shards = [path for path in repo.head.files if path.startswith("data/ratings/")]
    return sum(pq.read_table(io.BytesIO(repo.read(path))).num_rows for path in shards)


def test_publish_from_a_revision_does_not_publish_to_the_repository_it_reads(
    online, publishable, tmp_path, capsys
):
    assert main([*SYNC, "--store", str(publishable)]) == 0
    source = ["--dataset", "anna/ratings", "--revision", online.repo("anna/ratings").head.id]
    account = ["--account", str(tmp_path / "releases.json")]
    capsys.readouterr()
    for target, code in (("anna/ratings", 2), ("anna/public", 0)):
        assert main(["publish", *source, *account, "--repo-id", target, "--yes"]) == code
    assert "must not be the private one" in capsys.readouterr().err
    assert not online.repo("anna/public").is_private


def test_who_was_erased_elsewhere_is_not_published(online, publishable, tmp_path):
    other = tmp_path / "other"
    assert main([*SYNC, "--store", str(publishable)]) == 0
    assert main([*SYNC, "--store", str(other), "--restore"]) == 0
    erase = ["erase", "--store", str(other), "--rater", first_rater(publishable), "--yes"]
    assert main([*erase, "--repo-id", "anna/ratings"]) == 0
    assert len(rows_in(publishable)) == 12
    assert main([*PUBLISH, "--store", str(publishable)]) == 0
    assert n_public(online) == len(rows_in(publishable)) == 11


def test_a_carried_store_is_not_published_while_its_remote_does_not_answer(
    online, publishable, capsys, monkeypatch
):
    assert main([*SYNC, "--store", str(publishable)]) == 0
    monkeypatch.delenv("HF_TOKEN")
    capsys.readouterr()
    for dry in ([], ["--dry-run"]):
        assert main([*PUBLISH, "--store", str(publishable), *dry]) == 2
        assert "right to write to the private dataset anna/ratings" in capsys.readouterr().err
    assert ("dataset", "anna/public") not in online.repos


def test_a_revision_that_is_not_the_newest_is_not_published(online, publishable, tmp_path, capsys):
    source = ["--dataset", "anna/ratings", "--account", str(tmp_path / "releases.json")]
    assert main([*SYNC, "--store", str(publishable)]) == 0
    old = online.repo("anna/ratings").head.id
    row = rows_in(publishable)[0]
    later = row.created_at + timedelta(minutes=1)
    with RatingStore(publishable / DATABASE_NAME) as store:
        store.undo([row.rating_id], rater_id=row.rater_id)
        narrowed = replace(rows_in(publishable)[1], rating_id=new_id(), page_id=new_id())
        store.add_rows([replace(narrowed, consent_scope="personal_only", created_at=later)])
    assert main([*SYNC, "--store", str(publishable)]) == 0
    capsys.readouterr()
    assert main([*PUBLISH, *source, "--revision", old]) == 2
    assert "got a revision that is not the newest" in capsys.readouterr().err
    assert ("dataset", "anna/public") not in online.repos
    assert main([*PUBLISH, *source, "--revision", "main"]) == 0
    assert n_public(online) == 10


@pytest.mark.parametrize("is_from_store", [True, False])
def test_what_cannot_be_read_may_be_a_withdrawal_and_nothing_is_published(
    online, publishable, tmp_path, capsys, is_from_store
):
    assert main([*SYNC, "--store", str(publishable)]) == 0
    row = rows_in(publishable)[0]
    with RatingStore(publishable / DATABASE_NAME) as store:
        store.undo([row.rating_id], rater_id=row.rater_id)
    assert main([*SYNC, "--store", str(publishable)]) == 0
    repo = online.repo("anna/ratings")
    (grave,) = [path for path in repo.head.files if path.startswith("tombstones/")]
    repo.write({grave: json.dumps(json.loads(repo.read(grave)) | {"schema_version": 99}).encode()})
    source = ["--dataset", "anna/ratings", "--revision", "main"]
    source += ["--account", str(tmp_path / "releases.json")]
    capsys.readouterr()
    assert main([*PUBLISH, *(["--store", str(publishable)] if is_from_store else source)]) == 2
    assert "got 1 file that cannot be read" in capsys.readouterr().err


def test_publish_from_a_dataset_needs_the_account_of_its_releases(capsys):
    source = ["--dataset", "anna/ratings", "--revision", "a" * 40]
    assert main(["publish", *source, "--repo-id", "anna/public", "--dry-run"]) == 2
    assert "`--account` must name a file" in capsys.readouterr().err
