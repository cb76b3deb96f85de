"""preferences.json is read whole or refused, and nobody in it is named in a message."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy_core.errors import InvalidArgumentError
from privacy_core.revise.preferences import Preferences, read_preferences
from tests.privacy_core.people import write_preferences


def test_a_subject_has_its_own_strength_and_everybody_else_the_populations(tmp_path):
    path = write_preferences(tmp_path / "p.json", {"ann": 0.25, "bob": 1}, 0.7)
    found = read_preferences(path)
    assert found.strength_of("ann") == (0.25, "own")
    assert found.strength_of("bob") == (1.0, "own")
    assert found.strength_of("cid") == found.strength_of(None) == (0.7, "population")
    assert found.model_version == "embedded@tiny"
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("population", [None, {"strength": None}])
def test_a_population_without_a_strength_leaves_the_others_without_one(tmp_path, population):
    path = write_preferences(tmp_path / "p.json")
    content = json.loads(path.read_text()) | {"population": population}
    path.write_text(json.dumps(content))
    assert read_preferences(path).strength_of("zoe") == (None, "population")


def message_of(path):
    with pytest.raises(InvalidArgumentError) as error:
        read_preferences(path)
    return str(error.value)


@pytest.mark.parametrize("strength", ["0.5", None, -0.1, 1.01, True, float("nan"), [], {}])
def test_a_strength_that_is_none_is_refused_without_naming_the_subject(tmp_path, strength):
    path = write_preferences(tmp_path / "p.json", {"good": 0.5, "Jane Doe": strength})
    message = message_of(path)
    assert "Subject 2 of 2" in message
    assert "[0, 1]" in message
    assert "Jane" not in message
    assert "feedback fit" in message


def test_every_problem_is_counted_and_few_are_shown(tmp_path):
    path = write_preferences(tmp_path / "p.json", {str(i): 2 for i in range(9)}, population=3)
    message = message_of(path)
    assert message.count("must have a `strength`") == 3
    assert "And 7 more." in message


@pytest.mark.parametrize(
    ("change", "mention"),
    [
        ({"schema_version": 2}, "`schema_version` 1"),
        ({"schema_version": None}, "`schema_version` 1"),
        ({"subjects": [1]}, "`subjects` must be an object"),
        ({"subjects": {"a": 0.5}}, "Subject 1 of 1"),
        ({"population": 0.8}, "`population` must be an object or null"),
        ({"population": {"strength": "high"}}, "`population` must have a `strength`"),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused(tmp_path, change, mention):
    path = write_preferences(tmp_path / "p.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert mention in message_of(path)


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "p.json").write_bytes(text)
    assert "p.json" in message_of(tmp_path / "p.json")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "can be read" in message_of(tmp_path / "none.json")
    assert "can be read" in message_of(tmp_path)


def test_nobody_shows_in_a_repr():
    assert "jane" not in repr(Preferences({"jane": 0.5}, 0.8))


@given(
    st.dictionaries(st.text(max_size=8), st.floats(0, 1), max_size=5),
    st.floats(0, 1),
)
def test_every_strength_in_range_survives_the_file(tmp_path_factory, subjects, population):
    path = tmp_path_factory.mktemp("p") / "p.json"
    found = read_preferences(write_preferences(path, subjects, population))
    assert dict(found.subjects) == subjects
    assert found.population == population


# --- Where strengths come from ---------------------------------------------------------------


def test_a_file_says_where_its_strengths_come_from_and_names_nobody(tmp_path):
    population = {"strength": 0.7, "sd": 0.2, "n_raters": 9, "epsilon": 1.0, "release": "first"}
    path = write_preferences(tmp_path / "p.json", {"ann": 0.4, "bob": 0.6})
    said = {"feedback_revision": "abc", "generated_at": "2026-01-01T00:00:00+00:00"}
    content = json.loads(path.read_text()) | said | {"population": population}
    path.write_text(json.dumps(content))
    found = read_preferences(path).provenance
    own = {"n_subjects": 2, "mean_sd": pytest.approx(0.1), "n_ratings": 18}
    assert found == said | {"population": population, "own": own}


def test_what_a_file_does_not_say_is_none_and_never_guessed(tmp_path):
    content = {"schema_version": 1, "subjects": {"ann": {"strength": 0.4}}, "population": None}
    (tmp_path / "p.json").write_text(json.dumps(content))
    found = read_preferences(tmp_path / "p.json").provenance
    assert found["feedback_revision"] is None
    assert set(found["population"].values()) == {None}
    assert found["own"] == {"n_subjects": 0, "mean_sd": None, "n_ratings": None}


def test_a_named_subject_of_whom_too_little_is_known_has_the_populations(tmp_path):
    entries = {
        "ann": {"strength": 0.4, "source": "own"}, "bob": {"strength": 0.7, "source": "population"},
    }  # fmt: skip
    content = {"schema_version": 1, "subjects": entries, "population": {"strength": 0.7}}
    (tmp_path / "p.json").write_text(json.dumps(content))
    found = read_preferences(tmp_path / "p.json")
    assert [found.is_own(name) for name in ("ann", "bob", "cyn")] == [True, False, False]
