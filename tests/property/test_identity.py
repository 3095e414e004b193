"""Ids that can be verified without a look-up: what holds for every secret and session."""

from uuid import UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from tracardi_lite.protocol.identity import Identity

secrets = st.text(min_size=1, max_size=40)


@given(secrets, st.text(max_size=60))
def test_issued_and_derived_ids_are_uuids_that_verify(secret: str, session: str) -> None:
    identity = Identity([secret])

    for id in (identity.issue(), identity.derive(session), identity.derive_from_key(session)):
        assert str(UUID(id)) == id
        assert UUID(id).version == 4
        assert identity.issued(id)


@given(secrets, st.text(max_size=60))
def test_every_replica_derives_the_same_id(secret: str, session: str) -> None:
    assert Identity([secret]).derive(session) == Identity([secret]).derive(session)


@given(secrets, st.text(max_size=60), st.text(max_size=60))
def test_other_sessions_and_merge_keys_get_other_ids(secret: str, one: str, other: str) -> None:
    assume(one != other)
    identity = Identity([secret])

    assert identity.derive(one) != identity.derive(other)
    assert identity.derive(one) != identity.derive_from_key(one)


@given(secrets, secrets)
def test_ids_of_another_installation_do_not_verify_and_those_of_an_old_secret_do(old: str, new: str) -> None:
    assume(old != new)
    id = Identity([old]).issue()

    assert not Identity([new]).issued(id)
    assert Identity([new, old]).issued(id)


@given(st.uuids() | st.text(max_size=50))
def test_no_foreign_id_verifies(id: object) -> None:
    assert not Identity(["a secret of this installation"]).issued(str(id))


@given(st.integers(0, 127))
def test_an_id_with_any_bit_changed_does_not_verify(bit: int) -> None:
    identity = Identity(["a secret"])
    id = UUID(identity.derive("session"))

    assert not identity.issued(str(UUID(int=id.int ^ 1 << bit)))


def test_another_spelling_of_an_id_is_not_a_second_id() -> None:
    identity = Identity(["a secret"])

    assert not identity.issued(identity.derive("session").upper())
    assert not identity.issued(identity.derive("session").replace("-", ""))
