"""Work that mostly need not wait, written once for callers with and without a task.

``Steps`` is a generator that yields what it must wait for and is sent the result. Where everything that the door needs
is in its caches, ``next`` runs it to its end: no task, no switch. Where something is not, ``finish`` goes on in a task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

T = TypeVar("T")
Steps = Generator[Awaitable[Any], Any, T]


async def finish(steps: Steps[T], waits_for: Awaitable[Any]) -> T:
    """The end of ``steps``, which have begun and yielded ``waits_for``. Their errors are this call's."""
    while True:
        try:
            try:
                result = await waits_for
            except Exception as error:
                waits_for = steps.throw(error)
            else:
                waits_for = steps.send(result)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


async def run(steps: Steps[T]) -> T:
    """All of them, from the beginning."""
    try:
        waits_for = next(steps)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    return await finish(steps, waits_for)
