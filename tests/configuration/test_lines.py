"""On which line each key stands."""

from __future__ import annotations

from tierline.configuration.lines import lines_of

TEXT = '''
# a comment = 1
mode = "observe"   # behind

[ladder]
haiku = "claude-haiku-5-5"
"opus 5" = { model = "claude-opus-5-5", max_tokens = 5 }

[policy]
task = """
floor = "no key"
[no.table]
"""
tags.feature = "x"

[routes."/a.b/*"]
floor = "opus"
[[routes."/a.b/*".budgets]]
amount = "$1"

[[budgets]]
alert_at = [
  0.5,
  # of them
  1.0,
]
amount = "$5"
[[budgets]]
  amount = "$6"

[tool.tierline.policy]
floor = "opus"
'''


def test_every_key_has_its_line() -> None:
    """Tables, lists of tables, dotted and quoted keys, and values of several lines."""
    found = lines_of(TEXT)
    assert found == {
        ("mode",): 3,
        ("ladder",): 5,
        ("ladder", "haiku"): 6,
        ("ladder", "opus 5"): 7,
        ("ladder", "opus 5", "model"): 7,
        ("ladder", "opus 5", "max_tokens"): 7,
        ("policy",): 9,
        ("policy", "task"): 10,
        ("policy", "tags"): 14,
        ("policy", "tags", "feature"): 14,
        ("routes",): 16,
        ("routes", "/a.b/*"): 16,
        ("routes", "/a.b/*", "floor"): 17,
        ("routes", "/a.b/*", "budgets"): 18,
        ("routes", "/a.b/*", "budgets", 0): 18,
        ("routes", "/a.b/*", "budgets", 0, "amount"): 19,
        ("budgets",): 21,
        ("budgets", 0): 21,
        ("budgets", 0, "alert_at"): 22,
        ("budgets", 0, "amount"): 27,
        ("budgets", 1): 28,
        ("budgets", 1, "amount"): 29,
        ("tool",): 31,
        ("tool", "tierline"): 31,
        ("tool", "tierline", "policy"): 31,
        ("tool", "tierline", "policy", "floor"): 32,
    }


def test_windows_lines_and_none() -> None:
    """Whatever ends a line, and where there is no key."""
    assert lines_of('a = 1\r\n\r\n[b]\r\nc = """\r\nx"""\r\n') == {("a",): 1, ("b",): 3, ("b", "c"): 4}
    assert lines_of("") == {}
