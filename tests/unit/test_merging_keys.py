"""Merge keys: byte for byte the original's, and only of what identifies somebody."""

from __future__ import annotations

import hashlib
import re

import pytest

from tracardi_lite.errors import Misconfigured
from tracardi_lite.pipeline.event_types import EventTypes
from tracardi_lite.pipeline.merging.identification import merging_of
from tracardi_lite.pipeline.merging.keys import MERGE_KEYS, MergeKeys, key_finder, key_hash, normal, prefix_of
from tracardi_lite.pipeline.paths import put
from tracardi_lite.pipeline.profile import new_profile
from tracardi_lite.settings import Settings

SECRET = "a secret of twenty and more"


def profile(**fields: object) -> dict[str, object]:
    made = new_profile("p", 0)
    for name, value in fields.items():
        put(made, tuple(name.split("__")), value)
    return made


def test_a_key_is_the_prefix_and_the_md5_of_secret_and_value_laid_out_as_a_uuid() -> None:
    key = key_hash(SECRET, "emm", "joe@example.com")
    digest = hashlib.md5(b"a secret of twenty and more-joe@example.com").hexdigest()
    assert key.replace("-", "") == "emm" + digest
    assert re.fullmatch(r"emm-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", key)


def test_a_known_key_stays_what_it_is_for_ever() -> None:
    # Computed once with md5sum: printf '%s' 's>a.d-kljsa87^5adh-joe@example.com' | md5sum
    assert key_hash("s>a.d-kljsa87^5adh", "emm-", "joe@example.com") == "emm-5bbcba03-b80e-0d8c-3a6e-1d08fd15fad1"


def test_the_prefixes_are_the_originals() -> None:
    assert {prefix: ".".join(path) for prefix, path in MERGE_KEYS.items()} == {
        "emm": "data.contact.email.main",
        "emb": "data.contact.email.business",
        "emp": "data.contact.email.private",
        "phm": "data.contact.phone.main",
        "phb": "data.contact.phone.business",
        "pho": "data.contact.phone.mobile",
        "pwa": "data.contact.phone.whatsapp",
        "iid": "data.identifier.id",
        "ipk": "data.identifier.pk",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(" Joe@Example.COM\n", "joe@example.com"), (17, "17"), ("", ""), ("  ", ""), (True, ""), (None, ""), ([1], "")],
)
def test_values_are_trimmed_and_lower_cased_and_some_identify_nobody(value: object, text: str) -> None:
    assert normal(value) == text


def test_a_profile_has_the_keys_of_the_fields_that_count() -> None:
    joe = profile(data__contact__email__main="Joe@x", data__identifier__pk="7", data__contact__phone__main="")
    assert dict(MergeKeys(SECRET).of(joe)) == {
        key_hash(SECRET, "ipk", "7"): "data.identifier.pk",
        key_hash(SECRET, "emm", "joe@x"): "data.contact.email.main",
    }
    assert dict(MergeKeys(SECRET, ["ipk"]).of(joe)) == {key_hash(SECRET, "ipk", "7"): "data.identifier.pk"}
    assert not dict(MergeKeys(SECRET).of(profile()))
    assert not dict(MergeKeys(SECRET).of(profile(data__contact="junk", data__identifier=["junk"])))


def test_the_primary_id_follows_its_field() -> None:
    joe = profile(data__contact__email__main="Joe@x", data__identifier__badge=" B7 ")
    MergeKeys(SECRET, primary="emm-").follow(joe)
    assert joe["primary_id"] == "Joe@x"
    MergeKeys(SECRET, primary="data.contact.email.main", primary_as_hash=True).follow(joe)
    assert joe["primary_id"] == key_hash(SECRET, "emm", "joe@x")
    MergeKeys(SECRET, primary="data.identifier.badge").follow(joe)
    assert joe["primary_id"] == " B7 "
    MergeKeys(SECRET, primary="data.identifier.pk").follow(joe)
    assert joe["primary_id"] == " B7 ", "a field that is not there is not followed"
    MergeKeys(SECRET).follow(joe)
    assert joe["primary_id"] == " B7 "


def test_a_field_is_named_by_path_or_prefix() -> None:
    assert prefix_of(" data.contact.phone.mobile") == prefix_of("pho") == prefix_of("pho-") == "pho"
    with pytest.raises(ValueError, match=r"data\.contact\.email\.main"):
        prefix_of("email")


def test_an_events_surest_key_is_found_by_its_mapping() -> None:
    find = key_finder(EventTypes())
    assert find("Sign In", {"pk": " A7 ", "email": {"main": "joe@x"}}) == "ipk:a7"
    assert find("sign-up", {"email": {"business": "Joe@X"}}) == "emb:joe@x"
    assert find("sign-up", {"email": {"main": " "}}) is None
    assert find("custom", {"pk": "7"}) is None


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("identification_event_property", {"identification_event_property": "data.contact.email.main,mail"}),
        ("merge_strategies", {"merge_strategies": "traits.x=BIGGEST"}),
        ("merge_strategies", {"merge_strategies": "traits.x"}),
        ("merge_strategies", {"merge_strategies": "stats.views=MAX"}),
        ("primary_id", {"primary_id": "data..pk"}),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(key: str, changes: dict[str, str]) -> None:
    with pytest.raises(Misconfigured) as caught:
        merging_of(Settings(**changes))  # type: ignore[arg-type]
    assert caught.value.key == key


def test_apm_no_turns_merging_off() -> None:
    assert merging_of(Settings(apm=False)).identification is None
