"""What every registry backend owes. A backend's tests subclass ``RegistrySuite`` and give ``connect``.

``connect`` opens another connection to the *same* registry, as another process would have; the suite checks through
two of them what has to hold over processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from itertools import count

import msgspec
import pytest

from tracardi_lite.errors import BadInput
from tracardi_lite.ports.registry import (
    RULE_KINDS,
    RULES_MAX,
    SOURCE_TYPES,
    EventSource,
    Named,
    Redirect,
    Registry,
    Rule,
    User,
)
from tracardi_lite.testing.clock import FakeClock

ANN = User(id="ann@example.com", name="Ann", roles=["admin"])
PASSWORD = "correct horse battery"
TTL_S = 1800


def full_source() -> EventSource:
    """A source with every field away from its default."""
    return EventSource(
        id="shop",
        name="Shop",
        type=["rest", "webhook"],
        bridge=Named(id="b-1", name="REST"),
        enabled=False,
        transitional=True,
        channel="Web",
        config={"static_profile_id": True, "deep": {"list": [1, None, "x"]}},
        description="The shop's pages, żółć",
        tags=["web", "eu"],
        groups=["General"],
        timestamp="2026-01-01T00:00:00+00:00",
        manual="Paste this.",
        locked=True,
        requires_consent=True,
        permanent_profile_id=True,
        synchronize_profiles=False,
        returns_profile=True,
        production=True,
        running=True,
    )


def a_redirect(id: str = "r-1") -> Redirect:
    return Redirect(
        id=id,
        name="Newsletter",
        description="Links in mails",
        source=Named(id="shop", name="Shop"),
        url="https://example.com/landing?x=1",
        event_type="link-clicked",
        props={"campaign": "payload@params.c"},
        tags=["mail"],
    )


def full_rule() -> Rule:
    """A rule with every field away from its default."""
    return Rule(
        kind="validation",
        id="v-1",
        name="Order has a total",
        description="żółć",
        event_type="order-paid",
        source="shop",
        enabled=False,
        order=7,
        condition="properties.total > 0",
        tags=["orders"],
        spec={"json_schema": {"event@properties": {"required": ["total"], "minProperties": 1}}, "deep": [None, 1.5]},
    )


class RegistrySuite:
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def connect(self, clock: FakeClock) -> Callable[[], Registry]:
        """Makes a registry that is not entered yet, always the same one, told the time by ``clock``."""
        raise NotImplementedError

    @pytest.fixture
    async def registry(self, connect: Callable[[], Registry]) -> AsyncIterator[Registry]:
        async with connect() as registry:
            await registry.migrate()
            yield registry

    @pytest.fixture
    async def other(self, registry: Registry, connect: Callable[[], Registry]) -> AsyncIterator[Registry]:
        """A second process's view of ``registry``."""
        async with connect() as other:
            yield other

    # --- schema ---

    async def test_migrating_says_what_it_did_and_again_does_nothing(self, connect: Callable[[], Registry]) -> None:
        async with connect() as registry:
            assert await registry.migrate()
            assert await registry.migrate() == []
            await registry.ping()

    async def test_processes_that_start_together_migrate_once(self, connect: Callable[[], Registry]) -> None:
        async with AsyncExitStack() as stack:
            registries = [await stack.enter_async_context(connect()) for _ in range(5)]
            done = await asyncio.gather(*(registry.migrate() for registry in registries))
            assert sorted(map(bool, done)) == [False] * 4 + [True]
            for registry in registries:
                assert await registry.sources() == []

    # --- sources ---

    async def test_a_source_comes_back_field_for_field(self, registry: Registry, other: Registry) -> None:
        source = full_source()
        assert source != EventSource(id="shop")
        await registry.save_source(source)
        assert await other.source("shop") == source
        assert await registry.source("SHOP") is None
        assert await registry.source("") is None

    async def test_saving_again_replaces_the_whole_source(self, registry: Registry, other: Registry) -> None:
        await registry.save_source(full_source())
        await other.save_source(EventSource(id="shop"))
        assert await registry.source("shop") == EventSource(id="shop")

    @pytest.mark.parametrize("kind", SOURCE_TYPES)
    async def test_every_known_type_can_be_saved(self, registry: Registry, kind: str) -> None:
        await registry.save_source(EventSource(id="s", type=[kind]))
        assert (await registry.sources())[0].type == [kind]

    @pytest.mark.parametrize(
        "bad",
        [
            EventSource(id="s", type=["carrier-pigeon"]),
            EventSource(id="s", type=["rest", "nonsense"]),
            EventSource(id="s", type=[]),
            EventSource(id=""),
            EventSource(id=" s"),
            EventSource(id="a\nb"),
            EventSource(id="@internal-1"),
            EventSource(id="x" * 10_000),
            EventSource(id="s", name="x" * 10_000),
            EventSource(id="s", description="x" * 1_000_000),
        ],
        ids=lambda source: repr(source)[:50],
    )
    async def test_what_is_no_source_is_bad_input_and_changes_nothing(
        self, registry: Registry, bad: EventSource
    ) -> None:
        with pytest.raises(BadInput) as caught:
            await registry.save_source(bad)
        assert caught.value.status == 422
        assert await registry.sources() == []

    async def test_ids_and_names_may_be_as_long_as_they_may_in_any_script(self, registry: Registry) -> None:
        source = EventSource(id="ż" * 190, name="🙂" * 255)
        await registry.save_source(source)
        assert await registry.source("ż" * 190) == source

    async def test_sources_are_listed_by_name_and_found_by_a_part_of_it(self, registry: Registry) -> None:
        for id, name, tags in (("1", "Żabka", []), ("2", "Blog", ["50%"]), ("3", "Shop", ["EU"])):
            await registry.save_source(EventSource(id=id, name=name, tags=tags))
        assert [source.name for source in await registry.sources()] == ["Blog", "Shop", "Żabka"]
        assert [source.name for source in await registry.sources("żAB")] == ["Żabka"]
        assert [source.name for source in await registry.sources("eu")] == ["Shop"]
        assert [source.name for source in await registry.sources("50%")] == ["Blog"]
        assert await registry.sources("_") == []
        assert [source.name for source in await registry.sources(limit=2)] == ["Blog", "Shop"]

    async def test_deleting_gives_the_source_that_was_there(self, registry: Registry, other: Registry) -> None:
        await registry.save_source(full_source())
        assert await other.delete_source("shop") == full_source()
        assert await registry.delete_source("shop") is None
        assert await registry.source("shop") is None

    async def test_a_source_is_seeded_once_and_stays_deleted(self, registry: Registry, other: Registry) -> None:
        seed = EventSource(id="default", name="Open")
        assert sorted(await asyncio.gather(registry.seed_source(seed), other.seed_source(seed))) == [False, True]
        assert await registry.source("default") == seed
        await registry.delete_source("default")
        assert not await other.seed_source(seed)
        assert await registry.source("default") is None

    async def test_seeding_leaves_a_source_that_somebody_made(self, registry: Registry) -> None:
        mine = EventSource(id="default", name="Mine")
        await registry.save_source(mine)
        assert not await registry.seed_source(EventSource(id="default", name="Seed"))
        assert await registry.source("default") == mine

    # --- redirects ---

    async def test_redirects_are_kept_listed_replaced_and_deleted(self, registry: Registry, other: Registry) -> None:
        await registry.save_redirect(a_redirect())
        await registry.save_redirect(a_redirect("r-2"))
        assert await other.redirect("r-1") == a_redirect()
        changed = msgspec.structs.replace(a_redirect(), url="http://example.com/")
        await other.save_redirect(changed)
        assert await registry.redirects() == [changed, a_redirect("r-2")]
        assert len(await registry.redirects(limit=1)) == 1
        assert await registry.delete_redirect("r-1")
        assert not await other.delete_redirect("r-1")
        assert await other.redirect("r-1") is None

    @pytest.mark.parametrize(
        "change",
        [
            {"url": "javascript:alert(1)"},
            {"url": "/relative"},
            {"url": "https://a\r\nSet-Cookie: x"},
            {"event_type": " "},
            {"id": ""},
            {"source": Named(id="")},
        ],
        ids=str,
    )
    async def test_what_is_no_redirect_is_bad_input(self, registry: Registry, change: dict[str, object]) -> None:
        with pytest.raises(BadInput) as caught:
            await registry.save_redirect(msgspec.structs.replace(a_redirect(), **change))
        assert caught.value.status == 422
        assert await registry.redirects() == []

    # --- rules ---

    async def test_a_rule_comes_back_field_for_field(self, registry: Registry, other: Registry) -> None:
        await registry.save_rule(full_rule())
        assert await other.rule("validation", "v-1") == full_rule()
        assert await registry.rule("mapping", "v-1") is None
        assert await registry.rule("validation", "V-1") is None
        await other.save_rule(Rule(kind="validation", id="v-1"))
        assert await registry.rules() == [Rule(kind="validation", id="v-1")]

    async def test_rules_are_listed_in_the_order_in_which_they_act(self, registry: Registry) -> None:
        made = [Rule(kind=kind, id=f"{kind}-{place}", order=place) for kind in RULE_KINDS for place in (-1, 2, 10)]
        for rule in reversed(made):
            await registry.save_rule(rule)
        assert await registry.rules() == made
        assert await registry.rules("mapping") == [rule for rule in made if rule.kind == "mapping"]
        assert await registry.rules(limit=2) == made[:2]
        same = [Rule(kind="mapping", id=id, name=name, order=2) for id, name in (("b", "A"), ("c", "A"), ("a", "B"))]
        for rule in same:
            await registry.save_rule(rule)
        assert [rule.id for rule in await registry.rules("mapping")] == [
            "mapping--1",
            "mapping-2",
            "b",
            "c",
            "a",
            "mapping-10",
        ]

    async def test_rules_are_found_by_a_part_of_what_people_call_them(self, registry: Registry) -> None:
        await registry.save_rule(full_rule())
        await registry.save_rule(Rule(kind="mapping", id="m", name="Other"))
        for words in ("TOTAL", "v-1", "order-p", "Żół", "orders"):
            assert [rule.id for rule in await registry.rules(query=words)] == ["v-1"]
        assert await registry.rules("mapping", "total") == []

    async def test_every_change_of_a_rule_makes_the_revision_larger(self, registry: Registry, other: Registry) -> None:
        seen = [await registry.rules_revision()]
        await registry.save_rule(full_rule())
        seen.append(await other.rules_revision())
        await other.save_rule(full_rule())
        seen.append(await registry.rules_revision())
        await registry.delete_rule("validation", "v-1")
        seen.append(await other.rules_revision())
        assert seen == sorted(set(seen))
        await registry.delete_rule("validation", "v-1")
        await registry.save_source(EventSource(id="shop"))
        assert await other.rules_revision() == seen[-1]

    async def test_changes_of_two_processes_are_both_counted(self, registry: Registry, other: Registry) -> None:
        before = await registry.rules_revision()
        both = (registry, other) * 5
        await asyncio.gather(*(each.save_rule(Rule(kind="mapping", id=str(n))) for n, each in enumerate(both)))
        assert await registry.rules_revision() == before + 10
        assert len(await other.rules()) == 10

    async def test_deleting_gives_the_rule_that_was_there(self, registry: Registry, other: Registry) -> None:
        await registry.save_rule(full_rule())
        await registry.save_rule(Rule(kind="mapping", id="v-1"))
        assert await other.delete_rule("validation", "v-1") == full_rule()
        assert await registry.delete_rule("validation", "v-1") is None
        assert await registry.rules() == [Rule(kind="mapping", id="v-1")]

    @pytest.mark.parametrize(
        "change",
        [{"kind": "magic"}, {"kind": ""}, {"id": ""}, {"id": " x"}, {"order": 1 << 31}, {"description": "x" * 100_000}],
        ids=lambda change: str(change)[:40],
    )
    async def test_what_is_no_rule_is_bad_input(self, registry: Registry, change: dict[str, object]) -> None:
        with pytest.raises(BadInput) as caught:
            await registry.save_rule(msgspec.structs.replace(full_rule(), **change))
        assert caught.value.status == 422
        assert await registry.rules() == []

    async def test_there_is_a_most_of_rules_and_those_that_are_there_can_still_change(self, registry: Registry) -> None:
        for number in range(RULES_MAX):
            await registry.save_rule(Rule(kind="mapping", id=str(number)))
        with pytest.raises(BadInput) as caught:
            await registry.save_rule(Rule(kind="mapping", id="one too many"))
        assert caught.value.status == 409
        await registry.save_rule(Rule(kind="mapping", id="0", name="changed"))
        assert len(await registry.rules()) == RULES_MAX

    # --- users ---

    async def test_a_user_logs_in_with_the_right_password_only(self, registry: Registry, other: Registry) -> None:
        await registry.save_user(ANN, PASSWORD)
        assert await other.authenticate("ann@example.com", PASSWORD) == ANN
        assert await other.authenticate(" Ann@Example.COM ", PASSWORD) == ANN
        assert await registry.authenticate("ann@example.com", PASSWORD + " ") is None
        assert await registry.authenticate("ann@example.com", "") is None
        assert await registry.authenticate("bob@example.com", PASSWORD) is None
        assert await registry.users() == [ANN]

    async def test_a_disabled_user_and_one_without_a_password_do_not_log_in(self, registry: Registry) -> None:
        await registry.save_user(msgspec.structs.replace(ANN, enabled=False), PASSWORD)
        await registry.save_user(User(id="bob@example.com"), None)
        assert await registry.authenticate(ANN.id, PASSWORD) is None
        assert await registry.authenticate("bob@example.com", "") is None
        assert await registry.user("Bob@example.com") == User(id="bob@example.com")

    async def test_saving_without_a_password_keeps_the_one_there_is(self, registry: Registry) -> None:
        await registry.save_user(ANN, PASSWORD)
        renamed = msgspec.structs.replace(ANN, name="Anna", roles=["admin", "developer"])
        await registry.save_user(renamed, None)
        assert await registry.authenticate(ANN.id, PASSWORD) == renamed

    async def test_another_password_ends_the_users_tokens_and_the_same_one_does_not(self, registry: Registry) -> None:
        await registry.save_user(ANN, PASSWORD)
        token = await registry.issue_token(ANN.id, TTL_S)
        await registry.save_user(ANN, PASSWORD)
        assert await registry.check_token(token, TTL_S) == ANN
        await registry.save_user(ANN, "something else entirely")
        assert await registry.check_token(token, TTL_S) is None
        assert await registry.authenticate(ANN.id, PASSWORD) is None

    async def test_of_two_that_create_a_user_one_does(self, registry: Registry, other: Registry) -> None:
        made = await asyncio.gather(registry.create_user(ANN, "password one"), other.create_user(ANN, "password two"))
        assert sorted(made) == [False, True]
        winner, loser = ("password one", "password two") if made[0] else ("password two", "password one")
        assert await other.authenticate(ANN.id, winner) == ANN
        assert await registry.authenticate(ANN.id, loser) is None

    async def test_an_impossible_user_is_bad_input(self, registry: Registry) -> None:
        for user, password in ((User(id=" "), PASSWORD), (User(id="x" * 10_000), PASSWORD), (ANN, "x" * 1_000_000)):
            with pytest.raises(BadInput) as caught:
                await registry.save_user(user, password)
            assert caught.value.status == 422
        assert await registry.users() == []

    # --- failed logins ---

    async def test_after_five_failures_a_login_waits_over_all_processes(
        self, registry: Registry, other: Registry, clock: FakeClock
    ) -> None:
        await registry.save_user(ANN, PASSWORD)
        for process in (registry, other, registry, other, registry):
            assert await process.authenticate(ANN.id, "wrong") is None
        for process in (registry, other):
            with pytest.raises(BadInput) as caught:
                await process.authenticate("ANN@example.com", PASSWORD)
            assert caught.value.status == 429
            assert caught.value.retry_after_s == 300
        clock.advance(301)
        assert await other.authenticate(ANN.id, PASSWORD) == ANN

    async def test_parallel_guesses_of_one_process_do_not_overrun_the_limit(self, registry: Registry) -> None:
        await registry.save_user(ANN, PASSWORD)
        guesses = await asyncio.gather(*(registry.authenticate(ANN.id, "x") for _ in range(12)), return_exceptions=True)
        assert sum(guess is None for guess in guesses) == 5
        assert sum(isinstance(guess, BadInput) and guess.status == 429 for guess in guesses) == 7

    async def test_an_unknown_login_is_limited_in_the_same_way(self, registry: Registry) -> None:
        for _ in range(5):
            assert await registry.authenticate("nobody", "x") is None
        with pytest.raises(BadInput):
            await registry.authenticate("nobody", "x")

    async def test_a_success_forgets_the_failures_and_logins_do_not_share_them(self, registry: Registry) -> None:
        await registry.save_user(ANN, PASSWORD)
        for _ in range(3):
            for _ in range(4):
                assert await registry.authenticate(ANN.id, "wrong") is None
            assert await registry.authenticate(ANN.id, PASSWORD) == ANN
        assert await registry.authenticate("bob", "wrong") is None

    async def test_a_strangers_guesses_do_not_lock_the_owner_out(self, registry: Registry, other: Registry) -> None:
        await registry.save_user(ANN, PASSWORD)
        for _ in range(5):
            assert await registry.authenticate(ANN.id, "guess", "203.0.113.9") is None
        with pytest.raises(BadInput):
            await other.authenticate(ANN.id, PASSWORD, "203.0.113.9")
        assert await other.authenticate(ANN.id, PASSWORD, "192.0.2.1") == ANN
        with pytest.raises(BadInput):
            await registry.authenticate(ANN.id, PASSWORD, "203.0.113.9")

    async def test_guesses_from_everywhere_are_bounded_too_whoever_logs_in_meanwhile(
        self, registry: Registry, clock: FakeClock
    ) -> None:
        # Of an unknown login: a hundred passwords of a known one take a while to check.
        for number in range(100):
            assert await registry.authenticate("nobody", "guess", f"203.0.113.{number}") is None
        with pytest.raises(BadInput) as caught:
            await registry.authenticate("nobody", "guess", "192.0.2.1")
        assert caught.value.status == 429
        assert caught.value.retry_after_s == 300
        clock.advance(301)
        assert await registry.authenticate("nobody", "guess", "192.0.2.1") is None

    # --- tokens ---

    async def test_a_token_lives_as_long_as_it_is_used(
        self, registry: Registry, other: Registry, clock: FakeClock
    ) -> None:
        await registry.save_user(ANN, PASSWORD)
        token = await registry.issue_token("Ann@example.com", TTL_S)
        for _ in range(5):
            clock.advance(TTL_S * 0.8)
            assert await other.check_token(token, TTL_S) == ANN
        clock.advance(TTL_S + 1)
        assert await other.check_token(token, TTL_S) is None
        assert await registry.check_token(token, TTL_S) is None

    async def test_small_steps_prolong_a_life_too(self, registry: Registry, clock: FakeClock) -> None:
        await registry.save_user(ANN, PASSWORD)
        token = await registry.issue_token(ANN.id, TTL_S)
        for _ in range(100):
            clock.advance(TTL_S * 0.03)
            assert await registry.check_token(token, TTL_S) == ANN

    async def test_tokens_are_long_and_all_different(self, registry: Registry) -> None:
        await registry.save_user(ANN, PASSWORD)
        tokens = [await registry.issue_token(ANN.id, TTL_S) for _ in range(20)]
        assert len(set(tokens)) == 20
        assert min(map(len, tokens)) >= 43  # 256 bits in base64

    async def test_a_revoked_token_is_dead_everywhere_and_others_live(
        self, registry: Registry, other: Registry
    ) -> None:
        await registry.save_user(ANN, PASSWORD)
        first, second = await registry.issue_token(ANN.id, TTL_S), await registry.issue_token(ANN.id, TTL_S)
        assert await other.revoke_token(first)
        assert not await registry.revoke_token(first)
        assert await registry.check_token(first, TTL_S) is None
        assert await registry.check_token(second, TTL_S) == ANN

    @pytest.mark.parametrize("token", ["", "x", "x" * 100_000, "' OR 1=1 --", "\udc80", "żółć"])
    async def test_what_was_never_issued_is_nobodys(self, registry: Registry, token: str) -> None:
        assert await registry.check_token(token, TTL_S) is None
        assert not await registry.revoke_token(token)

    async def test_a_disabled_users_token_is_worth_nothing(self, registry: Registry) -> None:
        await registry.save_user(ANN, PASSWORD)
        token = await registry.issue_token(ANN.id, TTL_S)
        await registry.save_user(msgspec.structs.replace(ANN, enabled=False), None)
        assert await registry.check_token(token, TTL_S) is None

    # --- the installation's own state ---

    async def test_all_processes_agree_on_a_secret(self, registry: Registry, other: Registry) -> None:
        numbers = count()

        def make() -> str:
            return f"secret-{next(numbers)}"

        answers = await asyncio.gather(*(process.secret("identity", make) for process in (registry, other) * 5))
        assert len({tuple(answer) for answer in answers}) == 1
        assert len(answers[0]) == 1
        assert await registry.secret("another", lambda: "x") == ["x"]

    async def test_a_rotated_secret_comes_first_and_the_old_ones_stay(
        self, registry: Registry, other: Registry
    ) -> None:
        await registry.secret("identity", lambda: "old")
        await asyncio.gather(registry.rotate_secret("identity", "a"), other.rotate_secret("identity", "b"))
        await registry.rotate_secret("identity", "newest")
        values = await other.secret("identity", lambda: "unused")
        assert (values[0], values[-1]) == ("newest", "old")
        assert sorted(values[1:3]) == ["a", "b"]

    async def test_what_is_locked_first_holds(self, registry: Registry, other: Registry) -> None:
        held = await asyncio.gather(registry.locked("tenant_name", "one"), other.locked("tenant_name", "two"))
        assert len(set(held)) == 1
        assert await other.locked("tenant_name", "three") == held[0]
        assert await registry.locked("another", "") == ""
        assert await registry.locked("another", "x") == ""
