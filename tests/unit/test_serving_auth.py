from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pipelines.errors import ParamsError
from serving import auth
from serving.auth import Role
from serving.problems import Problem

READER = "reader-key-0123456789"
DIGEST = hashlib.sha256(READER.encode()).hexdigest()


def keys(tmp_path: Path, value: object) -> auth.Keys:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(value))
    return auth.load(path)


def test_a_key_may_be_written_as_its_digest_or_out(tmp_path: Path) -> None:
    for name in (READER, f"sha256:{DIGEST}"):
        assert keys(tmp_path, {name: "read"}).of(READER) == {Role.READ}


def test_admin_may_do_everything_and_the_others_what_they_say(tmp_path: Path) -> None:
    found = keys(tmp_path, {"admin-key-0123456789": ["admin"], READER: ["read", "write"]})
    assert found.of("admin-key-0123456789") == set(Role)
    assert found.of(READER) == {Role.READ, Role.WRITE}
    assert found.of("another-key-0123456789") is None


def test_yaml_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f'"{READER}": write\n')
    assert auth.load(path).of(READER) == {Role.WRITE}


@pytest.mark.parametrize(
    "value", [{}, [], {"short": "read"}, {READER: "root"}, {READER: []}, {"sha256:12": "read"}, {READER: None}]
)
def test_a_file_that_is_no_mapping_of_keys_to_roles_is_refused_without_showing_a_key(
    tmp_path: Path, value: object
) -> None:
    with pytest.raises(ParamsError) as caught:
        keys(tmp_path, value)
    assert READER not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="absent"):
        auth.load(tmp_path / "absent")


def test_a_missing_or_unknown_key_is_401_and_a_missing_role_403(tmp_path: Path) -> None:
    known = keys(tmp_path, {READER: "read"})
    for key, role, status in ((None, Role.READ, 401), ("wrong", Role.READ, 401), (READER, Role.ADMIN, 403)):
        with pytest.raises(Problem) as caught:
            auth.check(known, role, key=key, server="10.0.0.1", origin=None)
        assert (caught.value.http_status, caught.value.field) == (status, "X-API-Key")
    auth.check(known, Role.READ, key=READER, server="10.0.0.1", origin=None)


def test_without_keys_only_loopback_is_answered() -> None:
    auth.check(None, Role.ADMIN, key=None, server="127.0.0.1", origin="http://localhost:3000")
    for server, origin in (("10.0.0.1", None), (None, None), ("127.0.0.1", "https://evil.example")):
        with pytest.raises(Problem) as caught:
            auth.check(None, Role.READ, key=None, server=server, origin=origin)
        assert caught.value.http_status == 403
