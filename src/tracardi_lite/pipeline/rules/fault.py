"""What is wrong with a rule, and where in it."""

from __future__ import annotations

from collections.abc import Sequence

from tracardi_lite.errors import BadInput


class RuleFault(BadInput):
    """A rule that can't be obeyed. 422, with its place as the protocol writes places: ``loc``, a list of keys.

    ``where`` begins in the rule: ``("spec", "json_schema", …)``.
    """

    def __init__(self, where: Sequence[str | int], text: str) -> None:
        self.where = tuple(where)
        self.text = text
        super().__init__(422, [{"type": "value_error", "loc": ["body", *self.where], "msg": text}])

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.where))}: {self.text}"
