"""Keys and roles.

The file named by ``FUSELINE_API_KEYS_FILE`` is YAML or JSON and maps keys to a role or a list of roles::

    "sha256:9f86d081884c7d65...": [read, write]     # SHA-256 of the key, 64 hex digits; preferred
    "a-key-written-out": admin                       # the key itself, at least 16 characters

``read`` asks for lists, ``write`` posts events, ``admin`` may do everything. A caller sends the key itself
in the header ``X-API-Key``. ``printf %s "$KEY" | sha256sum`` makes the digest.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from pipelines.errors import ParamsError
from serving.problems import Problem

HEADER = "X-API-Key"
MIN_KEY_LENGTH = 16

_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")


class Role(StrEnum):
    """What a key may do."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True)
class Keys:
    """SHA-256 of each key -> its roles, with what they imply."""

    roles: Mapping[bytes, frozenset[Role]]

    def of(self, key: str) -> frozenset[Role] | None:
        """Roles of a key, or None when it is unknown; the time it takes does not depend on the key."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, roles in self.roles.items():
            if hmac.compare_digest(known, digest):
                found = roles
        return found


def load_from(environ: Mapping[str, str]) -> Keys | None:
    """The keys of ``FUSELINE_API_KEYS_FILE``, or None without it."""
    path = environ.get("FUSELINE_API_KEYS_FILE")
    return load(Path(path)) if path else None


def load(path: Path) -> Keys:
    """Read the keys file.

    Raises:
        ParamsError: when it is missing, unreadable, empty or holds anything but keys and roles; the message
            names the place in the file, never a key.
    """
    wanted = "a mapping of keys, or sha256:<64 hex digits>, to read, write, admin or a list of them"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParamsError(
            f"FUSELINE_API_KEYS_FILE {path} cannot be read", found=error.strerror, do="create it"
        ) from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        found = f"an error in line {where.line + 1}" if where else "neither"
        raise ParamsError(f"{path} is neither YAML nor JSON", found=found, wanted=wanted, do="edit it") from None
    if not isinstance(values, dict) or not values:
        raise ParamsError(f"{path} holds no keys", found=type(values).__name__, wanted=wanted, do="edit it")
    return Keys({_digest(path, n, key): _roles(path, n, roles) for n, (key, roles) in enumerate(values.items(), 1)})


def _digest(path: Path, entry: int, key: Any) -> bytes:
    if isinstance(key, str) and (match := _DIGEST.fullmatch(key)):
        return bytes.fromhex(match[1])
    if not isinstance(key, str) or len(key) < MIN_KEY_LENGTH or key.startswith("sha256:"):
        wanted = f"text in quotes of {MIN_KEY_LENGTH} characters or more, or sha256: and 64 hex digits"
        raise ParamsError(f"{path}: entry {entry} is not a key", wanted=wanted, do="edit it")
    return hashlib.sha256(key.encode()).digest()


def _roles(path: Path, entry: int, value: Any) -> frozenset[Role]:
    names = value if isinstance(value, list) else [value]
    if not names or not set(map(str, names)) <= set(Role):
        raise ParamsError(f"{path}: entry {entry}", found=names, wanted=f"roles of {', '.join(Role)}", do="edit it")
    roles = frozenset(Role(str(name)) for name in names)
    return frozenset(Role) if Role.ADMIN in roles else roles


def check(keys: Keys | None, role: Role, *, key: str | None, server: str | None, origin: str | None) -> None:
    """Let a request through or refuse it.

    Args:
        keys: the known keys; None leaves the service open on loopback.
        role: what the route asks for.
        key: the header ``X-API-Key``.
        server: the local address the connection came in on.
        origin: the header ``Origin``, which a browser adds to what another site's page sends.

    Raises:
        Problem: 401 without a known key, 403 without the role, or from elsewhere while there are no keys.
    """
    if keys is None:
        if not is_loopback(server) or (origin and not is_loopback(urlsplit(origin).hostname)):
            raise Problem(403, "without FUSELINE_API_KEYS_FILE the service answers on loopback only", field=HEADER)
        return
    roles = keys.of(key) if key else None
    if roles is None:
        said = "is not a known key" if key else "is missing"
        raise Problem(401, f"the header {HEADER} {said}", field=HEADER, headers={"WWW-Authenticate": "ApiKey"})
    if role not in roles:
        raise Problem(403, f"this key has not the role {role}", field=HEADER)


@functools.lru_cache(256)  # every request asks, nearly always for the same
def is_loopback(host: str | None) -> bool:
    """Whether an address or name can only mean this machine."""
    if host is None or host == "localhost":
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
