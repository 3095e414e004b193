"""Users, failed logins and tokens: the statements, as functions of a connection. Hashing is done by the caller.

Logins are folded to lower case by ``folded`` before they come here, tokens hashed by ``fingerprint``.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, select, update

from tracardi_lite.backends.registry.sql.database import insert_absent, upsert
from tracardi_lite.backends.registry.sql.tables import ID_CHARS, NAME_CHARS, account, login_failure, token
from tracardi_lite.errors import BadInput
from tracardi_lite.ports.registry import User

FAILURES_MAX = 5
"""… of one login from one place, so that a stranger's guesses do not lock its owner out."""
FAILURES_EVERYWHERE_MAX = 100
"""… of one login from all places together: guesses that come from many are 28,800 a day, whatever their number."""
FAILURES_WINDOW_MS = 5 * 60 * 1000
TOKENS_MAX = 1000
"""Live tokens of one user; the one that would expire first goes when there are more."""

_decode_roles = msgspec.json.Decoder(list[str]).decode


def folded(login: str) -> str:
    return login.strip().lower()


def fingerprint(text: str) -> str:
    """Tokens have 256 random bits, so that a plain hash tells nothing of them."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def check_user(user: User) -> None:
    """Raises ``BadInput`` 422 for what can't be a user."""
    if not 0 < len(folded(user.id)) <= ID_CHARS:
        raise BadInput(422, f"A login has 1 to {ID_CHARS} characters.")
    if len(user.name) > NAME_CHARS:
        raise BadInput(422, f"A name has at most {NAME_CHARS} characters.")


# --- users ---


def get_user(connection: Connection, id: str) -> User | None:
    row = connection.execute(select(account).where(account.c.id == id)).one_or_none()
    return None if row is None else _user(row)


def get_credentials(connection: Connection, id: str) -> tuple[User, str | None] | None:
    """The user and the password's hash."""
    row = connection.execute(select(account).where(account.c.id == id)).one_or_none()
    return None if row is None else (_user(row), row.password)


def list_users(connection: Connection) -> list[User]:
    return [_user(row) for row in connection.execute(select(account).order_by(account.c.id).limit(10_000))]


def create_user(connection: Connection, user: User, hashed: str, now_ms: int) -> bool:
    """False, and nothing changed, when there is one of this name."""
    values = _user_values(user) | {"id": user.id, "password": hashed, "created_ms": now_ms}
    connection.execute(insert_absent(connection.dialect.name, account, values))
    # Salted, so equal only if it is the row just written.
    return connection.execute(select(account.c.password).where(account.c.id == user.id)).scalar() == hashed


def save_user(connection: Connection, user: User, hashed: str | None, now_ms: int) -> None:
    """With ``hashed``, the password changes too and the user's tokens end."""
    changes = _user_values(user)
    if hashed is not None:
        changes["password"] = hashed
        connection.execute(delete(token).where(token.c.account_id == user.id))
    values = {"id": user.id, "password": None, "created_ms": now_ms} | changes
    connection.execute(upsert(connection.dialect.name, account, values, changes))


def rehash(connection: Connection, id: str, old: str, new: str) -> None:
    """Replace a password's hash by one with today's parameters, unless the password has changed meanwhile."""
    connection.execute(update(account).where(account.c.id == id, account.c.password == old).values(password=new))


def _user_values(user: User) -> dict[str, Any]:
    return {"name": user.name, "roles": msgspec.json.encode(user.roles).decode(), "enabled": user.enabled}


def _user(row: Any) -> User:
    return User(id=row.id, name=row.name, roles=_decode_roles(row.roles), enabled=bool(row.enabled))


# --- failed logins ---


def _counters(login: str, place: str) -> dict[str, int]:
    """What is counted for an attempt, and how far: by hashes, since a login is whatever somebody typed."""
    return {fingerprint(f"{login}\0{place}"): FAILURES_MAX, fingerprint(login): FAILURES_EVERYWHERE_MAX}


def locked_out_ms(connection: Connection, login: str, place: str, now_ms: int) -> int:
    """How long this login must wait, tried from there, in ms; 0 when it need not."""
    limits = _counters(login, place)
    rows = connection.execute(select(login_failure).where(login_failure.c.login.in_(limits)))
    waits = [int(row.first_ms) + FAILURES_WINDOW_MS - now_ms for row in rows if row.failures >= limits[row.login]]
    return max(0, *waits) if waits else 0


def note_failure(connection: Connection, login: str, place: str, now_ms: int) -> None:
    # Old windows of all logins go first: this one then starts afresh, and the table stays small.
    connection.execute(delete(login_failure).where(login_failure.c.first_ms <= now_ms - FAILURES_WINDOW_MS))
    again = {"failures": login_failure.c.failures + 1}
    for counter in _counters(login, place):
        values = {"login": counter, "failures": 1, "first_ms": now_ms}
        connection.execute(upsert(connection.dialect.name, login_failure, values, again))


def forget_failures(connection: Connection, login: str, place: str) -> None:
    """After a success, those from there; what others guess goes on being counted."""
    mine = fingerprint(f"{login}\0{place}")
    connection.execute(delete(login_failure).where(login_failure.c.login == mine))


# --- tokens ---


def add_token(connection: Connection, text: str, user_id: str, now_ms: int, expires_ms: int) -> None:
    """Keep a new token; drop what has expired, and the user's oldest if there are too many."""
    connection.execute(delete(token).where(token.c.expires_ms <= now_ms))
    mine = token.c.account_id == user_id
    many = connection.execute(select(func.count()).select_from(token).where(mine)).scalar_one() - TOKENS_MAX + 1
    if many > 0:
        oldest = connection.execute(select(token.c.hash).where(mine).order_by(token.c.expires_ms).limit(many))
        connection.execute(delete(token).where(token.c.hash.in_(oldest.scalars().all())))
    connection.execute(token.insert().values(hash=fingerprint(text), account_id=user_id, expires_ms=expires_ms))


def get_token(connection: Connection, text: str, now_ms: int) -> tuple[User, int] | None:
    """Whose token it is and when it expires, if both it and the user live."""
    query = (
        select(account, token.c.expires_ms)
        .join(token, token.c.account_id == account.c.id)
        .where(token.c.hash == fingerprint(text), token.c.expires_ms > now_ms, account.c.enabled)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (_user(row), int(row.expires_ms))


def extend_token(connection: Connection, text: str, expires_ms: int) -> None:
    connection.execute(update(token).where(token.c.hash == fingerprint(text)).values(expires_ms=expires_ms))


def delete_token(connection: Connection, text: str) -> bool:
    return connection.execute(delete(token).where(token.c.hash == fingerprint(text))).rowcount > 0
