"""What reads bytes of others, each as a function of bytes that fails where something is wrong with it.

A target lets through only the errors that are promised, and checks what has to hold for every input. The suite tries
them with Hypothesis, quickly; `make fuzz` for minutes each, led by which branches an input reaches.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from contextlib import suppress
from dataclasses import astuple
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tierline.batches import BatchRequest
from tierline.batches.webhooks import WebhookSignatureError, new_secret, verify
from tierline.budgets import Budget, parse_limit, parse_money
from tierline.call import VIEW_CHARS, read_call, text_bytes, view_of
from tierline.cli.batch_reading import Requests, Shape
from tierline.configuration.building import built
from tierline.configuration.checking import problems_of
from tierline.configuration.lines import lines_of
from tierline.configuration.loading import load
from tierline.errors import ConfigurationError
from tierline.evaluation.replay import Replay, Replayed, Unknown
from tierline.evaluation.rows import read, row_of
from tierline.evaluation.scenario import scenario_of
from tierline.ladder import Ladder
from tierline.learn.handles import Handles
from tierline.ledger import entries
from tierline.ledger.opening import open_ledger
from tierline.limits import exhausted_for, retry_after
from tierline.policies import Policy, combine, policy
from tierline.prices import PriceBook
from tierline.routes import RouteTable
from tierline.transcript import streamed_content, streamed_text, text_in
from tierline.usage import reader_for
from tierline.values import Terms
from tierline.verdicts.sealing import Sealing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LADDER: Final = Ladder.of(haiku="claude-haiku-5-5", sonnet="claude-sonnet-5-5", opus="claude-opus-5-5")
PRICES: Final = PriceBook()
SCENARIO: Final = scenario_of({"ladder": {"haiku": "claude-haiku-5-5", "opus": "claude-opus-5-5"}})
SECRET: Final = new_secret()
ROUTES: Final = RouteTable(
    {"/checkout/*": policy(floor="opus"), "/a/{b}/c": policy(ceiling="haiku"), "/*/x/*": policy(floor="sonnet")}, LADDER
)

KINDS: Final = ("text/event-stream", "application/vnd.amazon.eventstream", "application/json")


def as_json(data: bytes) -> Any:
    """The JSON in it; None where there is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def as_text(data: bytes) -> str:
    """Any text: what is no UTF-8 becomes surrogates, as in names of files and in headers."""
    return data.decode("utf-8", "surrogateescape")


def body(data: bytes) -> None:
    """A request: reading it never fails, and what bounds it is not below the bytes of its texts."""
    found = as_json(data)
    call = read_call("create", found)
    if call is None:
        return
    assert call.input_bound is None or call.input_bound >= call.text_bytes >= 0
    assert call.max_tokens is None or call.max_tokens > 0
    view = view_of(call, combine((), LADDER))
    assert len(view.text) <= VIEW_CHARS + 10
    first = found["messages"][0]
    if call.input_bound is not None and isinstance(first, dict) and isinstance(first.get("content"), str):
        assert call.input_bound >= text_bytes(first["content"])


def usage(data: bytes) -> None:
    """An answer: cut anywhere it says the same, counts are whole numbers from 0 up, and nothing fails."""
    if len(data) < 2:
        return
    kind, rest = KINDS[data[0] % len(KINDS)], data[1:]
    whole, bytewise, halves = (reader_for(kind, Terms()) for _ in range(3))
    whole.feed(rest)
    for at in range(len(rest)):
        bytewise.feed(rest[at : at + 1])
    halves.feed(rest[: len(rest) // 2])
    halves.feed(rest[len(rest) // 2 :])
    assert whole.seen == bytewise.seen == halves.seen
    assert whole.final == bytewise.final == halves.final
    assert whole.error == bytewise.error == halves.error
    assert whole.cut == bytewise.cut == halves.cut
    for reader in (whole, bytewise, halves):
        assert reader.cut_bound is None or reader.cut_bound >= 0
    if whole.seen is not None:
        assert all(type(count) is int and count >= 0 for count in astuple(whole.seen.usage))


def transcript(data: bytes) -> None:
    """A recorded stream, and a document: what can be read of them is text, or nothing."""
    frames = data.split(b"\n\n")
    assert isinstance(streamed_text(frames), (str, type(None)))
    assert isinstance(streamed_content(frames), list)
    assert isinstance(text_in(data), (str, type(None)))


def money(data: bytes) -> None:
    """An amount, a limit, a budget: a whole number of nano-USD that is read again from its own text, or an error."""
    text = as_text(data)
    with suppress(ConfigurationError):
        assert parse_money(text) >= 0
    try:
        limit = parse_limit(text)
    except ConfigurationError:
        return
    assert isinstance(limit.nano, int)
    assert limit.nano > 0
    Budget(text, name="b").line("acme")


def configuration(data: bytes) -> None:
    """A file: what is wrong in it is named, with its line; what is right makes a configuration."""
    with suppress(UnicodeDecodeError):
        lines_of(data.decode())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tierline.toml"
        path.write_bytes(data)
        with suppress(ConfigurationError):
            load(path, environ={})


def table(data: bytes) -> None:
    """The table of a configuration: a key that is wrong is a problem, and never an exception."""
    found = as_json(data)
    if not isinstance(found, dict):
        return
    if not list(problems_of(found)):
        built(found)
    with suppress(ConfigurationError):
        scenario_of(found)


def environment(data: bytes) -> None:
    """A value of a variable of the environment."""
    name, _, value = as_text(data).partition("=")
    with suppress(ConfigurationError):
        load(os.devnull, environ={f"TIERLINE_{name.upper()}": value})


def rules(data: bytes) -> None:
    """Fields of a policy, of any type: an error that names the culprit, or a policy that combines."""
    found = as_json(data)
    if not isinstance(found, dict):
        return
    known = {name: value for name, value in found.items() if name in Policy.__dataclass_fields__}
    with suppress(ConfigurationError):
        rule = Policy(**known)
        rule.check(LADDER, "here")
        effective = combine((rule, policy(floor="sonnet")), LADDER)
        assert effective.floor >= 1


def store(data: bytes) -> None:
    """The URL of a store: an error without a password in it, or a ledger that has not connected to anything."""
    text = as_text(data)
    with suppress(ConfigurationError):
        open_ledger(text, None, on_error="closed", allowance=0.1, journal=None, clock=float, on_change=lambda _: None)
    with suppress(ConfigurationError):
        open_ledger(
            f"redis://:canary@{text}",
            None,
            on_error="closed",
            allowance=0.1,
            journal=None,
            clock=float,
            on_change=lambda _: None,
        )


def rows(data: bytes) -> None:
    """A file of graded answers, or a decision log: rows, or an error with the line."""
    if not data:
        return
    ending = (".jsonl", ".csv", ".tsv", ".jsonl.gz")[data[0] % 4]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{ending}"
        path.write_bytes(data[1:])
        with suppress(ConfigurationError):
            for row in read(path):
                assert all(0 <= good <= 1 for _, good in row.grades)
                list(row.outcomes)


def decisions(data: bytes) -> None:
    """A line of a decision log: it is decided again, or it is said why not."""
    found = as_json(data)
    if not isinstance(found, dict):
        return
    with suppress(ConfigurationError):
        row = row_of("here", {"v": 1, **found})
        again = Replay(SCENARIO, PRICES).again(row)
        assert isinstance(again, (Replayed, Unknown))


def batch(data: bytes) -> None:
    """A file of requests for a batch, in any format: requests, or what is wrong with a line."""
    if not data:
        return
    shape = Shape("{text}" if data[0] & 1 else "", max_tokens=5, encoding=("utf-8", "latin-1", "cp1252")[data[0] % 3])
    with suppress(ConfigurationError):
        file = BytesIO(data[1:])
        found = list(Requests(file, shape))
        again = list(Requests(file, shape))
        assert len(found) == len(again)
        for each in found:
            if isinstance(each, BatchRequest):
                assert isinstance(each.params, dict)


def webhook(data: bytes) -> None:
    """What comes to who receives webhooks: nothing that was not signed is taken."""
    head, _, rest = data.partition(b"\n")
    parts = [*as_text(head).split("|"), "", "", ""][:3]
    headers = dict(zip(("webhook-id", "Webhook-Timestamp", "webhook-signature"), parts, strict=True))
    try:
        verify(SECRET, headers, rest, now=1_800_000_000.0)
    except WebhookSignatureError:
        return
    raise AssertionError("taken without a signature")


def secret(data: bytes) -> None:
    """What is given as the secret of webhooks."""
    with suppress(ConfigurationError, WebhookSignatureError):
        verify(as_text(data), {}, b"")


def headers(data: bytes) -> None:
    """Headers of an answer: waits are seconds from 0 up, or nothing."""
    found: Mapping[str, str] = {
        name.lower(): value for name, _, value in (line.partition(": ") for line in as_text(data).splitlines())
    }
    wait = retry_after(found)
    assert wait is None or (wait >= 0 and not math.isnan(wait))
    left = exhausted_for(found, 1_800_000_000.0)
    assert left is None or 0 < left <= 3600


def path(data: bytes) -> None:
    """A path that somebody asks for, with no framework to tell its route: the strictest is found for its prefix."""
    text = as_text(data)
    for scope in (
        {"path": text, "root_path": ""},
        {"path": text, "root_path": text[:3]},
        {"path": f"/checkout/{text}"},
    ):
        found = ROUTES.policies_for(scope, None, entered=text)
        assert isinstance(found, tuple)
    if not set(text) & set("/."):
        assert policy(floor="opus") in ROUTES.policies_for({"path": f"/checkout/{text}", "root_path": ""}, None)


def handle(data: bytes) -> None:
    """A handle that somebody made up, and a verdict that somebody wrote into the store."""
    assert Handles(b"s" * 32).read(as_text(data), 0.0) is None
    assert Sealing(b"s" * 32, "m").unseal("k", as_text(data)) is None


def journal(data: bytes) -> None:
    """A row of a journal: an entry that is written again as it was, or one of the errors that set it aside."""
    try:
        entry = entries.read("key", 1.0, as_text(data))
    except (ValueError, LookupError, TypeError):
        return
    text = entries.written(entry)
    assert entries.written(entries.read("key", 1.0, text)) == text


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    each.__name__: each
    for each in (
        body, usage, transcript, money, configuration, table, environment, rules, store, rows, decisions, batch,
        webhook, secret, headers, path, handle, journal,
    )
}  # fmt: skip
"""All of them, by name: a folder of `corpus/` has where to begin for each."""
