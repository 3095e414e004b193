"""Tools of the cluster's random test: a plan can be had again; a crowded Elasticsearch answers like a real one."""

from __future__ import annotations

import json
import random
from itertools import pairwise

from aiohttp import web

from tests.integration.elastic_proxy import Crowd, operations
from tests.integration.storm import HOLD_S, plan

BULK = b"""{"create":{"_id":"a"}}
{"n":1}
{"delete":{"_id":"b"}}
{"index":{"_id":"c"}}
{"n":3}
"""


def test_a_plan_comes_again_from_its_seed_and_stays_within_its_time() -> None:
    assert plan(7, 60) == plan(7, 60)
    assert plan(7, 60) != plan(8, 60)
    assert all(0 < step.at_s < 60 for step in plan(7, 60))


def test_plans_come_to_every_fault_and_let_them_overlap() -> None:
    plans = [plan(seed, 60) for seed in range(20)]
    assert {step.fault for steps in plans for step in steps} == HOLD_S.keys()
    assert all(any(later.at_s < step.at_s + step.hold_s for step, later in pairwise(steps)) for steps in plans)


def test_a_bulk_is_taken_apart_into_its_operations() -> None:
    assert [act for act, _ in operations(BULK)] == ["create", "delete", "index"]
    assert b"".join(lines for _, lines in operations(BULK)) == BULK


async def test_a_crowded_bulk_has_a_verdict_for_each_item_in_order_and_does_those_that_it_says() -> None:
    done: list[str] = []

    async def elasticsearch(body: bytes) -> web.Response:
        ids = [json.loads(lines.splitlines()[0])[act]["_id"] for act, lines in operations(body)]
        done.extend(ids)
        return web.json_response({"items": [{"any": {"_id": id, "status": 201}} for id in ids]})

    crowd = Crowd(random.Random(1))
    kinds = set()
    for _ in range(200):
        done.clear()
        answer = await crowd.answer("/_bulk", BULK, elasticsearch)
        assert isinstance(answer.body, bytes)
        if answer.status == 429:
            assert not done
            kinds.add("whole")
            continue
        verdicts = [next(iter(item.values())) for item in json.loads(answer.body)["items"]]
        assert len(verdicts) == 3
        assert [id for id, verdict in zip("abc", verdicts, strict=True) if verdict["status"] == 201] == done
        assert all(verdict["_id"] in done for verdict in verdicts if verdict["status"] == 201)
        kinds.add("all" if len(done) == 3 else "none" if not done else "some")
    assert kinds == {"whole", "all", "some", "none"}
    assert crowd.requests > 0
    assert crowd.items > 0
