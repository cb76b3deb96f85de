"""Signing in on a Space: only where it is offered, and by the visitor's own right."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import gradio as gr
import pytest
import yaml

from app import build_page, for_visitor
from feedback import RatingStore
from feedback.remote.base import NullRemote
from feedback.sync.loop import Sync
from privacy_core.anonymize import Anonymizer
from privacy_core.backends.embedded import EmbeddedBackend
from privacy_core.errors import InvalidArgumentError
from privacy_core.faces import HogDetector
from shell.desk import RatingDesk
from shell.handlers.models import OwnModelHandlers
from shell.models import LoopQueue
from shell.routes import PUBLIC_CALLS
from shell.sign_in import OWN_NAME, SIGN_IN, SIGN_IN_FIRST, SignIn, find_sign_in
from tests import loop_runs
from tests.page_server import fresh_keys
from tests.privacy_core.tiny import write_tiny_model

SPACE = {
    "SYSTEM": "spaces",
    "OAUTH_CLIENT_ID": "id",
    "OAUTH_CLIENT_SECRET": "secret",
    "OAUTH_SCOPES": "openid profile",
    "OPENID_PROVIDER_URL": "https://hub.example",
}
SECRET = "hf_planted_91c2"  # noqa: S105 - of nobody
REQUEST = SimpleNamespace(headers={})


def profile(name="anna"):
    return gr.OAuthProfile(
        {"name": name, "preferred_username": name, "profile": "", "picture": "", "sub": "1"}
    )


def token():
    return gr.OAuthToken(token=SECRET, scope="", expires_at=0)


def built(folder, **collaborators):
    """Build the page, which is not launched: elsewhere Gradio signs in nobody."""
    backend = EmbeddedBackend.load(write_tiny_model(folder / "model"))
    with RatingStore(folder / "ratings.sqlite3") as store:
        desk = RatingDesk(
            store=store, keys=fresh_keys(), sync=Sync(store, NullRemote()), model=backend.revision
        )
        return build_page(
            anonymizer=Anonymizer(backend, HogDetector()),
            desk=desk,
            loops=LoopQueue(lambda *_: (), environment={}),
            cache=folder / "cache",
            report=dict,
            **collaborators,
        )


@pytest.fixture
def sent():
    """List what is sent: by whose right, to which repository."""
    return []


@pytest.fixture
def handlers(sent):
    def send(folder, *, repo_id, client):
        sent.append(
            (repo_id, client.token, client.endpoint, sorted(p.name for p in folder.iterdir()))
        )
        return SimpleNamespace(repo_id=repo_id, revision="0123456789abcdef")

    return OwnModelHandlers(SignIn("https://hub.example", send))


@pytest.fixture
def run():
    return SimpleNamespace(evidence=loop_runs.evidence())


def test_a_model_goes_to_the_account_that_is_signed_in_by_its_own_right(handlers, sent, run, capfd):
    said = handlers.publish_own(REQUEST, run, OWN_NAME, profile(), token())
    ((repo_id, right, endpoint, files),) = sent
    assert (repo_id, right, endpoint) == (f"anna/{OWN_NAME}", SECRET, "https://hub.example")
    assert "audit.json" in files
    assert f"anna/{OWN_NAME}" in said
    # It is nowhere else: not in what is said, printed or kept.
    heard = capfd.readouterr()
    assert SECRET not in said + heard.out + heard.err + repr(vars(handlers)) + repr(vars(run))


@pytest.mark.parametrize(("who", "right"), [(None, None), (profile(), None), (None, token())])
def test_without_a_signed_in_visitor_nothing_is_sent(handlers, sent, run, who, right):
    with pytest.raises(InvalidArgumentError, match="must be signed in"):
        handlers.publish_own(REQUEST, run, OWN_NAME, who, right)
    assert sent == []
    assert SIGN_IN_FIRST.endswith("try again.")


def test_gradio_reads_from_the_types_that_it_shall_pass_who_is_signed_in(handlers):
    hints = get_type_hints(for_visitor(handlers.publish_own))
    assert hints["profile"] == gr.OAuthProfile | None
    assert hints["token"] == gr.OAuthToken | None


@pytest.mark.parametrize(
    "name",
    ["", "ben/model", "../x", "-x", "x" * 97, "a b", None, "a--b", "a..b", "a.git", "a-", "a."],
)
def test_a_name_cannot_lead_into_another_account(handlers, sent, run, name):
    with pytest.raises(InvalidArgumentError, match="`name` must be"):
        handlers.publish_own(REQUEST, run, name, profile(), token())
    assert sent == []


def test_a_model_that_did_not_pass_goes_nowhere(handlers, sent):
    failed = SimpleNamespace(evidence=loop_runs.evidence(passed=False))
    with pytest.raises(InvalidArgumentError, match="must pass the gate"):
        handlers.publish_own(REQUEST, failed, OWN_NAME, profile(), token())
    with pytest.raises(InvalidArgumentError, match="must have been run"):
        handlers.publish_own(REQUEST, None, OWN_NAME, profile(), token())
    assert sent == []


def test_what_goes_wrong_is_said_without_the_token(run, capfd):
    def send(*_, **__):
        raise RuntimeError(SECRET)

    publish_own = for_visitor(OwnModelHandlers(SignIn(None, send)).publish_own)
    with pytest.raises(gr.Error) as caught:
        publish_own(REQUEST, run, OWN_NAME, profile(), token())
    heard = capfd.readouterr()
    assert SECRET not in str(caught.value) + heard.out + heard.err


def test_signing_in_is_offered_on_a_space_that_has_it_and_nowhere_else():
    assert find_sign_in(SPACE, has=lambda _: True) == SignIn(None)
    assert find_sign_in(SPACE | {"HF_ENDPOINT": "https://x"}, has=bool) == SignIn("https://x")
    for name in SPACE:
        assert find_sign_in({**SPACE, name: ""}, has=lambda _: True) is None
    assert find_sign_in(SPACE, has=lambda name: name != "authlib" or None) is None
    assert find_sign_in({}) is None


def test_the_button_adds_no_call_for_programs(tmp_path, monkeypatch):
    # Of what a Space installs with Gradio, nothing is here.
    monkeypatch.setattr("gradio.routes.attach_oauth", lambda _: None)
    page = built(tmp_path, sign_in=SignIn())
    labels = [b.value for b in page.blocks.values() if isinstance(b, gr.LoginButton)]
    assert labels == [SIGN_IN]
    listed = page.get_api_info()["named_endpoints"]
    assert {name.strip("/") for name in listed} == PUBLIC_CALLS
    without = built(tmp_path / "other", sign_in=None)
    assert not any(isinstance(b, gr.LoginButton) for b in without.blocks.values())


def test_the_spaces_header_asks_for_what_publishing_needs_and_no_more():
    text = (Path(__file__).parent.parent / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["hf_oauth"] is True
    assert set(header["hf_oauth_scopes"]) == {"write-repos", "manage-repos"}


def test_a_publisher_is_refused_before_anything_is_sent():
    with pytest.raises(InvalidArgumentError):
        SignIn().publisher("x", owner=None, token=SECRET)
