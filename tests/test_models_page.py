"""The *Models* page without a browser: its queue, its commands, its evidence, its words."""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from pyarrow import parquet

from feedback.__main__ import main as feedback_main
from privacy_core.__main__ import main as core_main
from privacy_core.errors import InvalidArgumentError, ModelError
from privacy_core.unlearning.base import METHODS
from privacy_core.unlearning.certificate import verify
from shell import evidence as evidences
from shell import model_words as words
from shell import models
from shell.audit_chart import accuracy_chart, attack_chart, cost_chart, drawn
from shell.child import run_command
from shell.evidence import open_publisher, read_evidence
from shell.handlers.models import ModelHandlers
from shell.loop import LoopSettings, child_environment, methods_for, plan_loop
from shell.models import LoopQueue, RunView, StepView
from tests import loop_runs
from tests.page_server import PEOPLE, RefusedError, Visitor, start
from tests.privacy_core.test_hub import make

# Gradio counts its events with pandas calls that the pinned pandas calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

SOON = 20
"""Seconds that nothing here takes, on a busy machine either."""
SECRET = "hf_secret"  # noqa: S105 - nobody's


def found(_folder):
    return loop_runs.evidence()


@pytest.fixture
def queue_of(tmp_path):
    """Return a function that makes a queue whose folders lie in `tmp_path / "place"`."""
    (tmp_path / "place").mkdir()
    made = []

    def queue_of(plan, **options):
        options = {"read": found, "environment": dict(os.environ), **options}
        made.append(LoopQueue(plan, place=tmp_path / "place", **options))
        return made[-1]

    yield queue_of
    for queue in made:
        queue.close()


def folders(tmp_path):
    return list((tmp_path / "place").iterdir())


def wait_for_bar(queue, run):
    """Return the first view with a bar in it; the queue is looked at, not slept at."""
    ticks = threading.Event()
    for _ in range(SOON * 50):
        view = queue.look(run)
        if view.is_over or any(step.total for step in view.steps):
            return view
        ticks.wait(0.02)
    raise AssertionError("no bar")


def is_alive(process):
    """Say whether a process runs; one that is dead and not yet collected does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_death(process):
    """Return once a process that was killed is dead: the system takes a moment."""
    ticks = threading.Event()
    for _ in range(SOON * 50):
        if not is_alive(process):
            return
        ticks.wait(0.02)
    raise AssertionError("still alive")


# --- The queue -----------------------------------------------------------------------------------


def test_a_run_goes_through_its_steps_and_leaves_evidence_and_no_file(queue_of, tmp_path):
    queue = queue_of(loop_runs.quick_plan)
    run = queue.enter(LoopSettings())
    assert run.finished.wait(SOON)
    view = queue.look(run)
    assert view.state == "done"
    assert [(step.name, step.state) for step in view.steps] == [
        (name, "done") for name in loop_runs.NAMES
    ]
    assert run.evidence == loop_runs.evidence()
    assert folders(tmp_path) == []


def test_progress_is_read_from_the_commands_own_bars(queue_of):
    queue = queue_of(loop_runs.stuck_plan)
    run = queue.enter(LoopSettings())
    step = wait_for_bar(queue, run).steps[0]
    assert (step.state, step.stage, step.done, step.total) == ("running", "Anonymizing", 2, 5)


def test_cancel_kills_the_command_with_all_it_started_and_removes_the_folder(queue_of, tmp_path):
    queue = queue_of(loop_runs.stuck_plan)
    run = queue.enter(LoopSettings())
    wait_for_bar(queue, run)
    (folder,) = folders(tmp_path)
    assert folder.stat().st_mode & 0o077 == 0
    grandchild = int((folder / "processes").read_text())
    assert is_alive(grandchild)
    queue.cancel(run)
    assert run.finished.wait(SOON)
    view = queue.look(run)
    assert (view.state, view.steps[0].state, view.steps[1].state) == (
        "cancelled",
        "cancelled",
        "waiting",
    )
    assert run.evidence is None
    assert folders(tmp_path) == []
    wait_for_death(grandchild)


def test_runs_wait_in_line_and_are_told_how_many_are_before_them(queue_of):
    queue = queue_of(loop_runs.stuck_plan)
    first = queue.enter(LoopSettings())
    wait_for_bar(queue, first)
    second, third = queue.enter(LoopSettings()), queue.enter(LoopSettings())
    assert [queue.look(run).ahead for run in (first, second, third)] == [0, 1, 2]
    queue.cancel(second)
    assert second.finished.is_set()
    assert queue.look(second).state == "cancelled"
    assert queue.look(third).ahead == 1
    queue.cancel(first)
    assert wait_for_bar(queue, third).state == "running"


def test_a_full_queue_refuses_politely_and_takes_runs_again(queue_of):
    queue = queue_of(loop_runs.stuck_plan, most_waiting=1)
    first = queue.enter(LoopSettings())
    wait_for_bar(queue, first)
    second = queue.enter(LoopSettings())
    with pytest.raises(InvalidArgumentError, match="At most 1 runs may wait"):
        queue.enter(LoopSettings())
    queue.cancel(second)
    queue.enter(LoopSettings())


@pytest.mark.parametrize("asks", [False, True])
def test_a_run_that_waits_for_a_closed_page_gives_up_its_place(queue_of, tmp_path, asks):
    now = [0.0]
    queue = queue_of(loop_runs.stuck_plan, clock=lambda: now[0], most_waiting=2)
    first = queue.enter(LoopSettings())
    wait_for_bar(queue, first)
    closed, third = queue.enter(LoopSettings()), queue.enter(LoopSettings())
    now[0] += models.UNSEEN_SECONDS
    assert [queue.look(run).ahead for run in (first, third)] == [0, 2]
    now[0] += 1
    if asks:
        assert queue.look(third).ahead == 1
    else:
        assert queue.look(queue.enter(LoopSettings())).ahead == 2
    assert closed.finished.is_set()
    assert (closed.state, "closed" in closed.message) == ("cancelled", True)
    assert queue.look(closed).is_over
    assert [queue.look(run).state for run in (first, third)] == ["running", "waiting"]
    assert len(folders(tmp_path)) == 1


def test_who_comes_back_late_still_waits_where_nobody_asked_before(queue_of):
    now = [0.0]
    queue = queue_of(loop_runs.stuck_plan, clock=lambda: now[0])
    first = queue.enter(LoopSettings())
    wait_for_bar(queue, first)
    second = queue.enter(LoopSettings())
    now[0] += models.UNSEEN_SECONDS
    queue.look(first)
    now[0] += 1
    assert queue.look(second).state == "waiting"


def test_a_refusal_is_shown_as_the_command_said_it(queue_of, tmp_path):
    queue = queue_of(loop_runs.refused_plan)
    run = queue.enter(LoopSettings())
    assert run.finished.wait(SOON)
    view = queue.look(run)
    assert (view.state, view.message) == ("failed", loop_runs.REFUSAL)
    assert [step.state for step in view.steps] == ["done", "failed"]
    assert folders(tmp_path) == []


def test_a_crash_tells_the_visitor_nothing_and_the_next_run_goes_on(queue_of, tmp_path, capsys):
    plans = iter([loop_runs.broken_plan, loop_runs.quick_plan])

    def broken_then_quick(settings, folder):
        return next(plans)(settings, folder)

    queue = queue_of(broken_then_quick)
    broken, healthy = queue.enter(LoopSettings()), queue.enter(LoopSettings())
    assert broken.finished.wait(SOON)
    assert healthy.finished.wait(SOON)
    assert queue.look(broken).message == "Something went wrong here. Please try again."
    assert queue.look(healthy).state == "done"
    assert str(tmp_path) not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("jump", "message"),
    [(models.LIMIT_SECONDS + 1, "may take 10 minutes"), (models.UNSEEN_SECONDS + 1, "closed")],
)
def test_a_run_ends_when_it_takes_too_long_or_nobody_looks(queue_of, tmp_path, jump, message):
    now = [0.0]
    queue = queue_of(loop_runs.stuck_plan, clock=lambda: now[0])
    run = queue.enter(LoopSettings())
    wait_for_bar(queue, run)
    now[0] += jump
    if jump > models.LIMIT_SECONDS:
        queue.look(run)
    assert run.finished.wait(SOON)
    assert message in run.message
    assert folders(tmp_path) == []


def test_closing_ends_every_run_and_takes_no_more(queue_of, tmp_path):
    queue = queue_of(loop_runs.stuck_plan)
    runs = [queue.enter(LoopSettings()) for _ in range(2)]
    wait_for_bar(queue, runs[0])
    queue.close(seconds=SOON)
    assert [run.state for run in runs] == ["cancelled", "cancelled"]
    assert folders(tmp_path) == []
    with pytest.raises(InvalidArgumentError):
        queue.enter(LoopSettings())


def test_a_command_sees_no_secret_and_keeps_its_caches_in_the_folder(tmp_path):
    seen = child_environment({"PATH": "/bin"}, root=tmp_path / "root", folder=tmp_path / "run")
    assert seen["HOME"] == seen["TMPDIR"] == str(tmp_path / "run")
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert not any("TOKEN" in name or "PRIVACY_DIAL" in name for name in models.PASSED_ON)


def test_a_command_that_stops_talking_can_still_be_stopped(tmp_path):
    heard = []
    code = run_command(
        [sys.executable, "-c", "import os, time; os.close(2); time.sleep(600)"],
        folder=tmp_path,
        environment=dict(os.environ),
        hear=heard.append,
        stop=iter([False, False, True, True]).__next__,
    )
    assert code is None
    assert heard == []


def test_a_command_killed_by_another_is_no_success(tmp_path):
    code = run_command(
        [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"],
        folder=tmp_path,
        environment=dict(os.environ),
        hear=print,
        stop=lambda: False,
    )
    assert code == -signal.SIGKILL


# --- The commands --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choice",
    [
        {"target": "svm"},
        {"label": "subject"},
        {"share": 0.99},
        {"n_models": 999},
        {"n_people": 10**9},
        {"method": "scrub"},  # for networks only
        {"method": "--help"},
    ],
)
def test_only_what_is_offered_can_be_chosen(choice):
    with pytest.raises(InvalidArgumentError, match="must"):
        LoopSettings(**choice)


@pytest.mark.parametrize("target", ["head", "resnet"])
def test_every_command_is_understood_as_typed(tmp_path, monkeypatch, capsys, target):
    """Nothing is there to work on, so each is refused for that and not for its options."""
    for method in methods_for(target):
        folder = tmp_path / method
        folder.mkdir()
        settings = LoopSettings(target=target, method=method)
        steps = plan_loop(settings, folder, data=PEOPLE)
        monkeypatch.chdir(tmp_path)
        for step in steps[1:] if method == "auto" else steps[4:5]:
            run = {"feedback": feedback_main, "privacy_core": core_main}[step.arguments[3]]
            assert run([*step.arguments[4:]]) == 2, step
            assert "--help" not in capsys.readouterr().err, step


def test_the_data_is_people_of_both_genders_and_the_test_rows_are_of_others(tmp_path):
    settings = LoopSettings(share=0.5)
    plan_loop(settings, tmp_path, data=PEOPLE)
    revised = (tmp_path / "subjects.txt").read_text().split()
    splits = {}
    for name, n in (("train", 24), ("test", 8)):
        table = parquet.read_table(tmp_path / "data" / f"{name}-00000-of-00001.parquet")
        splits[name] = dict(
            zip(table["subject"].to_pylist(), table["gender"].to_pylist(), strict=True)
        )
        assert len(table) == 8 * n
        assert len(splits[name]) == n
        assert sum(splits[name].values()) == n / 2
        assert b"huggingface" in table.schema.metadata
    assert not splits["train"].keys() & splits["test"].keys()
    assert len(revised) == settings.n_revised == 12
    assert sum(splits["train"][who] for who in revised) == 6


def test_every_method_and_step_has_its_words():
    assert set(words.METHODS) == {"auto", *METHODS}
    assert tuple(words.STEPS) == loop_runs.NAMES


@pytest.mark.slow
def test_the_real_commands_run_to_a_model_with_evidence(queue_of, tmp_path):
    """On few people: what takes long is the descriptor of every photo."""
    few = tmp_path / "few"
    few.mkdir()
    for name, n in (("train", 48), ("test", 16)):
        path = f"{name}-00000-of-00001.parquet"
        parquet.write_table(parquet.read_table(PEOPLE / path).slice(0, n), few / path)
    queue = queue_of(functools.partial(plan_loop, data=few), read=read_evidence)
    run = queue.enter(LoopSettings(target="resnet", share=0.1))
    while not run.finished.wait(1):
        queue.look(run)
    assert queue.look(run).state == "done", run.message
    evidence = run.evidence
    assert evidence.audit["people"] == {"retain": 4, "forget": 2, "revised": 2, "test": 2}
    assert {"audit.json", "certificate.json", "README.md", "plots/attack.svg"} <= set(
        evidence.files
    )
    assert "per-example attack" in words.numbers_table(evidence)
    assert words.charts_html(evidence).count("<figure>") == 4
    with zipfile.ZipFile(io.BytesIO(evidence.archive())) as archive:
        archive.extractall(tmp_path / "model")
    assert core_main(["verify", str(tmp_path / "model")]) == 0
    assert folders(tmp_path) == []


# --- The evidence --------------------------------------------------------------------------------


def test_the_download_holds_every_file_and_is_the_same_each_time():
    evidence = loop_runs.evidence()
    with zipfile.ZipFile(io.BytesIO(evidence.archive())) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == evidence.files
    assert evidence.archive() == evidence.archive()


def test_a_model_folder_is_read_whole_with_a_card_that_tells_of_the_gate(tmp_path):
    folder = make(tmp_path / "unlearned", passed=False)
    evidence = read_evidence(folder)
    assert not evidence.has_passed
    assert evidence.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert b"did not pass the gate" in evidence.files["README.md"]
    assert evidence.picture("accuracy").startswith(b"<?xml")
    assert evidence.picture("attack") is None
    assert words.charts_html(evidence).count("<figure>") == 1 + bool(cost_chart(evidence.audit))
    with zipfile.ZipFile(io.BytesIO(evidence.archive())) as archive:
        archive.extractall(tmp_path / "again")
    assert verify(tmp_path / "again").is_valid


def test_a_folder_too_large_to_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(evidences, "_MOST_BYTES", 3)
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    with pytest.raises(ModelError, match="command line"):
        read_evidence(tmp_path)


def test_only_a_model_that_passed_the_gate_is_published_and_without_the_pages_card():
    sent = {}

    def publisher(folder):
        sent.update({p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()})
        return "**Published**"

    with pytest.raises(InvalidArgumentError, match="must pass the gate"):
        loop_runs.evidence(passed=False).publish(publisher)
    assert sent == {}
    assert loop_runs.evidence().publish(publisher) == "**Published**"
    assert sent["model.safetensors"] == b"weights"
    assert "README.md" not in sent


@pytest.mark.parametrize(
    ("repo_id", "token", "named"),
    [("a/b", None, "HF_TOKEN"), (None, SECRET, "PRIVACY_DIAL_MODELS")],
)
def test_publishing_is_off_without_a_right_or_a_place_and_says_what_is_missing(
    repo_id, token, named
):
    publisher, missing = open_publisher(repo_id, token=token)
    assert publisher is None
    assert named in missing
    assert "privacy_core publish" in missing
    assert SECRET not in missing


def test_with_a_right_and_a_place_a_model_goes_there_privately(monkeypatch, tmp_path):
    calls = []

    def publish(folder, *, repo_id, client):
        calls.append((folder, repo_id, isinstance(client, HfApi)))
        return evidences_publication(repo_id)

    def evidences_publication(repo_id):
        from privacy_core.hub import Publication

        return Publication(repo_id, "0123456789abcdef", is_new=True, is_public=False)

    monkeypatch.setattr(evidences, "publish", publish)
    endpoint = "http://127.0.0.1:1"
    publisher, missing = open_publisher("a/b", token=SECRET, endpoint=endpoint)
    assert missing == ""
    line = publisher(tmp_path)
    assert calls == [(tmp_path, "a/b", True)]
    assert "a/b" in line
    assert SECRET not in line


# --- Words and pictures --------------------------------------------------------------------------


def test_publishing_says_why_it_is_off_for_a_model_and_what_it_would_do():
    assert "did not pass" in words.publish_line(loop_runs.evidence(passed=False), "")
    assert "private repository" in words.publish_line(loop_runs.evidence(), "")
    assert "no token" in words.publish_line(None, "no token")


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (RunView("waiting"), "Starting"),
        (RunView("waiting", 1), "1 run is before yours"),
        (RunView("waiting", 3), "3 runs are before yours"),
        (RunView("running", 0, (StepView("fit", "done"),)), "Nearly done"),
        (RunView("running", 0, (StepView("fit"),)), "Step 1 of 1:** Preferences"),
        (
            RunView("running", 0, (StepView("simulate", "done"), StepView("fit", "running"))),
            "Step 2 of 2:** Preferences",
        ),
        (RunView("done", 0, (StepView("fit", "done", 61.0),)), "1 min 1 s"),
        (RunView("cancelled"), "**Ended.** Nothing of it is left"),
        (RunView("failed", message="<b>`x` must</b>"), "&lt;b&gt;`x` must"),
    ],
)
def test_the_line_that_is_read_aloud_says_what_happens_now(view, said):
    assert said in words.said_line(view)


def test_a_step_says_in_words_what_its_mark_and_bar_show():
    step = StepView("revise", "running", 3.0, "<Anonymizing", 2, 5)
    html = words.steps_html(RunView("running", 0, (step,)))
    assert '<progress value="2" max="5" aria-label="&lt;Anonymizing, 2 of 5">' in html
    assert "running · 3 s" in html
    assert '<span class="mark" aria-hidden="true">' in html


def test_the_verdict_says_which_checks_failed_and_how_little_was_measured():
    passed = words.verdict_line(loop_runs.evidence())
    failed = words.verdict_line(loop_runs.evidence(passed=False, auc=0.9))
    assert "It passed the gate" in passed
    assert "It did not pass the gate" in failed
    assert "- The per-example attack AUC is too large." in failed
    for line in (passed, failed):
        assert "24 people, 6 of them revised, with 3 models" in line
        assert "too few to decide a release" in line


def test_pictures_say_in_words_what_they_show():
    audit = loop_runs.audit_values(auc=0.72)
    assert "original model: retain 90% (85% to 94%)" in accuracy_chart(audit)
    assert "unlearned model 0.72 (0.67 to 0.76)" in attack_chart(audit)
    assert "control: retrained models 0.46" in attack_chart(audit)
    assert "limit is 0.60" in attack_chart(audit)
    assert "25% of the seconds" in cost_chart(audit)
    for chart in (accuracy_chart(audit), attack_chart(audit), cost_chart(audit)):
        assert 'role="img"' in chart
    assert "alt='a \"curve\" &lt;'" in drawn(b"<svg/>", 'a "curve" <')


def test_what_was_not_measured_is_not_drawn():
    audit = loop_runs.audit_values()
    for model in audit["models"].values():
        del model["u_lira"]
        del model["accuracy"]["revised"]
    audit["gate"]["checks"] = []
    audit["costs"] = {}
    assert attack_chart(audit) == cost_chart(audit) == drawn(None, "") == ""
    assert "revised" not in accuracy_chart(audit)


def test_a_missing_limit_and_a_missing_interval_are_not_guessed():
    audit = loop_runs.audit_values()
    audit["gate"]["checks"][0] |= {"limit": None, "value": None}
    audit["models"]["unlearned"]["u_lira"]["auc"] |= {"low": None, "high": None}
    chart = attack_chart(audit)
    assert "limit" not in chart
    assert "unlearned model 0.50;" in chart
    table = words.numbers_table(evidences.Evidence(audit, {}))
    assert "| not known | not known |" in table


# --- The page ------------------------------------------------------------------------------------

CHOSEN = ("head", "smiling", 0.25, "auto", 3, 24)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models-page")
    hold = loop_runs.Hold(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "cache"))
        loops = LoopQueue(hold, environment=dict(os.environ), read=found)
        running = start(folder, loops=loops, publishing=open_publisher(None, token=None))
        running.hold = hold
        yield running
        loops.close()
        running.page.close()
        running.store.close()


@pytest.fixture
def visitor(page):
    page.hold.flag.unlink(missing_ok=True)
    visitor = Visitor(page)
    yield visitor
    visitor.call("cancel_loop")
    page.hold.let_go()


def watch_until(visitor, words_said):
    ticks = threading.Event()
    for _ in range(SOON * 20):
        outputs = visitor.call("watch_loop")
        if words_said in str(outputs[0]):
            return outputs
        ticks.wait(0.05)
    raise AssertionError(f"never said {words_said!r}")


def test_a_visitor_runs_the_loop_reads_the_audit_and_downloads_the_model(page, visitor):
    outputs = visitor.call("start_loop", *CHOSEN)
    assert outputs[4]["active"] is True
    page.hold.let_go()
    outputs = watch_until(visitor, "Done")
    text = json.dumps(outputs)
    assert "It passed the gate" in text
    assert "data:image/svg+xml;base64," in text
    assert outputs[4]["active"] is False
    file = visitor.call("download_model")[0]
    assert Path(file["path"]).name == "privacy-dial-model.zip"
    with zipfile.ZipFile(io.BytesIO(visitor.fetch(file).content)) as archive:
        assert set(archive.namelist()) == set(loop_runs.evidence().files)


def test_publishing_is_disabled_without_a_token_and_says_why(page, visitor):
    page.hold.let_go()
    visitor.call("start_loop", *CHOSEN)
    outputs = watch_until(visitor, "Done")
    assert outputs[9]["interactive"] is False
    assert "without `HF_TOKEN`" in outputs[10]
    with pytest.raises(RefusedError, match="without `HF_TOKEN`"):
        visitor.call("publish_model")


def test_a_visitor_sees_nothing_of_the_run_of_another(page, visitor):
    visitor.call("start_loop", *CHOSEN)
    watch_until(visitor, "Step 1 of 6")
    other = Visitor(page)
    assert other.call("watch_loop")[4]["active"] is False
    other.call("cancel_loop")
    for handler in ("download_model", "publish_model"):
        with pytest.raises(RefusedError, match="Run it first" if handler[0] == "d" else "must"):
            other.call(handler)
    assert "1 run is before yours" in other.call("start_loop", *CHOSEN)[0]
    other.call("cancel_loop")
    assert "Step 1 of 6" in visitor.call("watch_loop")[0]


def test_a_visitor_has_one_run_at_a_time_and_another_after_cancelling(visitor):
    visitor.call("start_loop", *CHOSEN)
    with pytest.raises(RefusedError, match="One run at a time"):
        visitor.call("start_loop", *CHOSEN)
    visitor.call("cancel_loop")
    outputs = watch_until(visitor, "Ended")
    assert outputs[4]["active"] is False
    visitor.call("start_loop", *CHOSEN)


def test_another_target_offers_its_own_methods_and_takes_one_of_them(page, visitor):
    update = visitor.call("set_target", "resnet")[0]
    assert "scrub" in [value for _, value in update["choices"]]
    assert update["value"] == "auto"
    page.hold.let_go()
    visitor.call("start_loop", "resnet", "gender", 0.1, "scrub", 3, 24)
    watch_until(visitor, "Done")


def test_what_is_not_offered_is_refused_by_the_server_too(visitor):
    for place, value in ((0, "svm"), (2, 0.9), (3, "--out=x"), (5, 10**6)):
        chosen = [*CHOSEN[:place], value, *CHOSEN[place + 1 :]]
        with pytest.raises(RefusedError):
            visitor.call("start_loop", *chosen)


def test_the_handlers_are_not_public_endpoints(page):
    handlers = {name for name in vars(ModelHandlers) if not name.startswith("_")}
    fns = [fn for fn in page.page.fns.values() if fn.name in handlers]
    assert {fn.name for fn in fns} == handlers
    assert {fn.api_visibility for fn in fns} == {"private"}
