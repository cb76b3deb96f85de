"""The certificate verifies what it was made for, and nothing that was changed since."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy_core.errors import InvalidArgumentError, ModelError, OutputError
from privacy_core.unlearning import certificate
from privacy_core.unlearning.certificate import (
    CERTIFICATE,
    canonical,
    certify,
    file_digests,
    new_salt,
    row_tokens,
    verify,
)

SALT = bytes(range(32))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    write(folder)
    return folder


def write(folder, **kwargs):
    return certify(
        folder,
        original={"weights": "aa", "data": "bb"},
        revised={"data": "cc"},
        update={"method": "newton-head", "measured": {"gradient_norm": 1e-11}},
        rows=row_tokens(SALT, [4, 9]),
        **kwargs,
    )


def test_a_certificate_verifies(folder):
    found = verify(folder, revised_digest="cc", salt=SALT, row_ids=[9, 4])
    assert found.is_valid
    assert found.problems == ()
    assert len(found.checked) == 4


def test_it_holds_what_the_design_asks_for(folder):
    body = json.loads((folder / CERTIFICATE).read_text())
    assert body["schema_version"] == 1
    assert body["original"] == {"weights": "aa", "data": "bb"}
    assert body["rows"]["count"] == len(body["rows"]["hmac"]) == 2
    assert set(body["files"]) == {"config.json", "model.safetensors"}
    assert body["update"]["method"] == "newton-head"
    assert any("not erasure" in limit for limit in body["limits"])
    assert SALT.hex() not in (folder / CERTIFICATE).read_text()


@pytest.mark.parametrize(
    "edit",
    [
        lambda body: body["update"].update(method="retrain"),
        lambda body: body["rows"].update(count=3),
        lambda body: body["limits"].clear(),
        lambda body: body["original"].update(data="other"),
        lambda body: body.update(sha256="0" * 64),
        lambda body: body.update(more=1),
    ],
)
def test_an_edit_breaks_it(folder, edit):
    path = folder / CERTIFICATE
    body = json.loads(path.read_text())
    edit(body)
    path.write_text(json.dumps(body))
    found = verify(folder)
    assert not found.is_valid
    assert "was edited" in found.problems[0]


@pytest.mark.parametrize("change", ["altered", "removed", "added"])
def test_changed_files_are_named(folder, change):
    name = "new.bin" if change == "added" else "model.safetensors"
    if change == "removed":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(b"other")
    assert verify(folder).problems == (f"The file {name!r} is not the one that was certified.",)


def test_the_card_and_plots_may_change(folder):
    (folder / "plots").mkdir()
    (folder / "plots" / "roc.svg").write_text("plot")
    (folder / "README.md").write_text("card")
    assert verify(folder).is_valid


def test_an_audit_written_afterwards_needs_a_new_certificate(folder):
    (folder / "audit.json").write_text("{}")
    assert not verify(folder).is_valid
    assert write(folder, audit={"gate": "passed"})["audit"] == {"gate": "passed"}
    assert verify(folder).is_valid


def test_other_data_and_other_rows_do_not_fit(folder):
    assert "revised data is not" in verify(folder, revised_digest="dd").problems[0]
    assert "rows are not those" in verify(folder, salt=SALT, row_ids=[4]).problems[0]
    assert not verify(folder, salt=new_salt(), row_ids=[4, 9]).is_valid


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"files": 1, "sha256": ""}'])
def test_a_certificate_that_cannot_be_read_is_no_proof(folder, content):
    path = folder / CERTIFICATE
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ModelError, match="missing or damaged"):
        verify(folder)


def test_a_full_disk_leaves_the_certificate_before(folder, monkeypatch):
    before = (folder / CERTIFICATE).read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(certificate.Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write(folder)
    assert (folder / CERTIFICATE).read_bytes() == before
    assert len(list(folder.iterdir())) == 3


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=5))
@settings(max_examples=50, derandomize=True)
def test_canonical_json_depends_on_the_value_alone(value):
    mixed = dict(reversed(list(value.items())))
    assert canonical(value) == canonical(mixed)
    assert json.loads(canonical(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes"])
def test_what_is_no_json_is_refused(value):
    with pytest.raises(InvalidArgumentError, match="plain JSON values"):
        canonical({"number": value})


def test_tokens_tell_nothing_without_the_salt_and_all_with_it():
    assert row_tokens(SALT, [1, 2]) == row_tokens(SALT, [2, 1])
    assert set(row_tokens(SALT, [1])).isdisjoint(row_tokens(new_salt(), [1]))
    assert len(new_salt()) == 32
    with pytest.raises(InvalidArgumentError, match="at least 32 bytes long, got 3"):
        row_tokens(b"abc", [1])


def test_hidden_files_are_not_certified(folder):
    (folder / ".lock").write_text("")
    assert ".lock" not in file_digests(folder)
