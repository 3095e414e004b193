"""How code blocks of a page become steps, and outputs are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import Step, matches, run, steps

PAGE = """# A page

```sh
x=one
```

```text
rm -rf everything
```

1. In a list:

   ```console
   $ echo "$x" \\
     two
   one two
   $ date
   …
   ```
"""


def test_only_sh_and_console_blocks_become_steps_with_their_lines() -> None:
    assert steps(PAGE) == [
        Step(4, "x=one\n"),
        Step(14, 'echo "$x" \\\n  two\n', "one two\n"),
        Step(17, "date\n", "…\n"),
    ]


def test_a_transcript_that_does_not_begin_with_a_command_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2"):
        steps("```console\nhello\n```\n")


def test_steps_share_one_shell_and_stop_at_the_first_that_fails(tmp_path: Path) -> None:
    done = run(
        [Step(1, "x=8686\n"), Step(2, 'echo "$x"\n'), Step(3, "false\n"), Step(4, "echo no\n")], tmp_path, {}, 17
    )
    assert (done.outputs, done.code) == (["", "17\n", ""], 1)


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("a\nb\nc\n", "a\n…\nc\n", True),
        ('{"id":"3f"}', '{"id":"…"}', True),
        ("a.c", "abc", False),
        ("abc", "a.c", False),
        ("a\nb", "a", False),
    ],
)
def test_an_ellipsis_stands_for_anything_and_all_else_for_itself(output: str, expected: str, same: bool) -> None:
    assert matches(output, expected) is same
