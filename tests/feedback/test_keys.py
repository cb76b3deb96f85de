import stat
import threading

import pytest

from feedback import InvalidKeyError, Keys, load_keys
from feedback.keys import KEY_FILE, KEY_VARIABLE

A, B = "aa" * 32, "bb" * 32


def test_a_key_of_the_environment_is_used_and_no_file_is_made(tmp_path):
    keys = load_keys(tmp_path, environment={KEY_VARIABLE: A})
    assert keys.by_epoch == {1: bytes.fromhex(A)}
    assert not keys.is_generated
    assert KEY_VARIABLE in keys.notice
    assert list(tmp_path.iterdir()) == []


def test_several_epochs_are_read_and_the_last_one_is_current(tmp_path):
    keys = load_keys(tmp_path, environment={KEY_VARIABLE: f"2:{A}, 1:{B}"})
    assert keys.by_epoch == {2: bytes.fromhex(A), 1: bytes.fromhex(B)}
    assert keys.epoch == 2


@pytest.mark.parametrize("environment", [{}, {KEY_VARIABLE: " "}])
def test_without_a_key_a_random_one_is_kept_for_the_owner_only_and_said_so(tmp_path, environment):
    folder = tmp_path / "data"
    keys = load_keys(folder, environment=environment)
    (path,) = folder.iterdir()
    assert path.name == KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert keys.is_generated
    assert str(path) in keys.notice
    assert load_keys(folder, environment=environment) == keys
    assert load_keys(tmp_path / "other", environment={}).by_epoch != keys.by_epoch


def test_processes_that_start_at_once_end_with_one_key(tmp_path):
    barrier, found = threading.Barrier(8), []

    def start():
        barrier.wait()
        found.append(load_keys(tmp_path, environment={}).by_epoch[1])

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


@pytest.mark.parametrize(
    "text", ["not hexadecimal", A[:-2], f"0:{A}", f"40000:{A}", f"x:{A}", f"1:{A},1:{B}", f"{A},"]
)
def test_a_malformed_key_is_refused_without_repeating_it(tmp_path, text):
    with pytest.raises(InvalidKeyError) as caught:
        load_keys(tmp_path, environment={KEY_VARIABLE: text})
    assert text not in str(caught.value)
    assert A[:8] not in str(caught.value)


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    load_keys(tmp_path, environment={})
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(InvalidKeyError, match="got mode 640"):
        load_keys(tmp_path, environment={})


def test_a_key_file_that_cannot_be_read_is_never_replaced(tmp_path):
    path = tmp_path / KEY_FILE
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    with pytest.raises(InvalidKeyError, match="readable text"):
        load_keys(tmp_path, environment={})
    assert path.read_bytes() == b"\xff\xfe"


def test_a_file_in_place_of_the_folder_is_an_error_with_a_way_out(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(InvalidKeyError, match=KEY_VARIABLE):
        load_keys(tmp_path / "data", environment={})


def test_keys_need_at_least_one_epoch():
    with pytest.raises(InvalidKeyError, match="at least one"):
        Keys({}, is_generated=False, notice="")


def test_secrets_are_not_in_the_repr(tmp_path):
    assert "aa" not in repr(load_keys(tmp_path, environment={KEY_VARIABLE: A}))


def test_each_purpose_and_epoch_has_its_own_key():
    keys = Keys({1: bytes(32), 2: b"x" * 32}, is_generated=False, notice="")
    made = {keys.derive("page"), keys.derive("rating"), keys.derive("page", epoch=1)}
    assert len(made) == 3
    assert keys.derive("page") == keys.derive("page", epoch=2)
    assert all(len(key) == 32 for key in made)
