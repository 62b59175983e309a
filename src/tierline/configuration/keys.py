"""Every key that a configuration may have: the one description that checking and the JSON Schema are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from tierline.budgets import Per
from tierline.legality import ACTIONS, Action
from tierline.values import LABELS, MODES

Kind = Literal["text", "number", "whole", "switch", "choice", "texts", "numbers", "pairs", "fields"]


@dataclass(frozen=True)
class Key:
    """One key. `kind` is what its value is; `or_` is another value that it may have, such as `false` for "never".

    `least` and `most` bound numbers. `pairs` are a table of texts; `fields` a table of anything.
    """

    name: str
    kind: Kind
    help: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    or_: bool | None = None
    """A switch that the value may be instead."""
    secret: bool = False
    """Whether a password may be in the value: what is wrong with it is said without it."""


ROUTER: Final = (
    Key("mode", "choice", "enforce, observe (decides, changes nothing) or off", MODES),
    Key("store", "text", "Where balances are kept: memory://, sqlite:///tierline.db, redis://localhost", secret=True),
    Key(
        "on_ledger_error",
        "choice",
        "What becomes of calls under a hard budget while the store is away",
        ("closed", "open"),
    ),
    Key("allowance", "number", "The share of a limit that a worker may spend while the store is away", least=0, most=1),
    Key("journal", "text", "A file for what the store was not told while it was away"),
    Key("min_confidence", "number", "An opinion less sure than this moves one tier up", least=0, most=1),
    Key("learn_after", "whole", "Outcomes of a route from which on it chooses the tier itself", least=1),
    Key("explore", "number", "The share of calls that try a neighbour of the tier that was chosen", least=0, most=0.01),
    Key(
        "max_upgrades",
        "number",
        "How much of an account's calls may go above the usual tier of a route",
        least=0,
        most=1,
    ),
    Key("second_worth", "text", 'What a second less to wait is worth, such as "$0.001"'),
    Key("cache_size", "whole", "Verdicts that a process keeps", least=1),
    Key("cache_ttl", "number", "Seconds for which a verdict counts", least=0),
    Key("share_verdicts", "switch", "Whether verdicts are kept in the store, for all processes"),
    Key(
        "verdict_window",
        "number",
        "Seconds that a question waits for others, to be asked in one request",
        least=0,
        most=1,
    ),
    Key("handle_ttl", "number", "Seconds for which a handle for grades is good", least=0),
    Key("cache_prompt", "switch", "Whether tools and system prompts are marked for the API's prompt cache"),
    Key("deadline", "number", "Seconds for a whole call, with its waits and retries", least=0),
    Key("decision_log", "text", "A file in which each decision is written down"),
    Key("shadow", "number", "The share of calls that the tier above answers too, to compare", least=0, most=1),
    Key("shadow_budget", "text", 'What comparing may cost, such as "$1/day"'),
    Key("shadow_judge", "text", "The tier that compares"),
    Key("shadow_text", "switch", "Whether texts of answers that were worse are kept in memory"),
    Key("batch_retention", "number", "Seconds for which results of batches are kept", least=0),
    Key("traffic", "switch", "Whether calls are added up by hour, for tierline watch and the page"),
)
"""Those of a Router, at the top. The environment has them too: `TIERLINE_STORE`."""

LEGALITY: Final = tuple(
    Key(name, "choice", f"What is done where a model rejects this; by default: {action}", get_args(Action))
    for name, action in ACTIONS.items()
)
POLICY: Final = (
    Key("floor", "text", "The lowest tier"),
    Key("ceiling", "text", "The highest tier"),
    Key("tier", "text", "The only tier"),
    Key("critical", "switch", "Never downgraded for a budget"),
    Key("label", "choice", "What every request here is, so that nothing is classified", LABELS),
    Key("task", "text", "What these calls do, in a few words"),
    Key("expected_output", "whole", "Tokens of a usual answer", least=1),
    Key("quality", "number", "The share of the top tier's quality to reach", least=0, most=1),
    Key("explicit_model", "choice", "What a model id in a request means", ("respect", "ceiling", "route")),
    Key("sticky", "switch", "Whether a conversation stays on its tier"),
    Key("per_step", "switch", "Whether each step of an agent is routed by itself"),
    Key(
        "speculate", "choice", "Send the cheapest tier while Claude is asked: true, false or auto", ("auto",), or_=True
    ),
    Key(
        "escalate",
        "fields",
        "A cheaper tier answers first, and its answer is checked: true, false or what is checked",
        or_=True,
    ),
    Key("max_tokens", "whole", "Most tokens of output", least=1),
    Key("tags", "pairs", "Names for decisions and spans"),
)
ESCALATE: Final = (
    Key("json", "switch", "An answer must be JSON"),
    Key("schema", "fields", "A JSON Schema that it must meet"),
    Key("truncated", "switch", "An answer that max_tokens cut off fails"),
    Key("refusals", "switch", "A refusal fails"),
    Key("unsure", "switch", "An answer that says it does not know fails"),
    Key("phrases", "texts", "Further words that must not be at its beginning"),
    Key("min_confidence", "number", "The least number that its confidence field may have", least=0, most=1),
    Key("confidence_field", "text", "How that field is called"),
    Key("graded", "switch", "Whether the cheapest tier grades it"),
    Key("threshold", "whole", "The least grade that is good enough", least=2, most=5),
    Key("hold", "whole", "Characters of a stream that are held back", least=0, most=4_000),
)
BUDGET: Final = (
    Key("amount", "text", 'How much, in which window: "$5/day", "$5/24h rolling", "$5"'),
    Key("per", "choice", "Whose limit it is; without it one account for all", get_args(Per)),
    Key("name", "text", "How reports call it; one that has a name may change its amount while the app runs"),
    Key("hard", "switch", "Whether it refuses what does not fit"),
    Key(
        "downgrade_at",
        "number",
        "The share from which on a cheaper tier answers; false: never",
        least=0,
        most=1,
        or_=False,
    ),
    Key(
        "cheapest_at",
        "number",
        "The share from which on the cheapest tier answers; false: never",
        least=0,
        most=1,
        or_=False,
    ),
    Key("timezone", "text", 'In which days begin, such as "Europe/Berlin"'),
    Key("alert_at", "numbers", "Shares at which Router(on_budget=…) is called", least=0, most=1),
)
TIER: Final = (
    Key("model", "text", "Its model id"),
    Key("max_tokens", "whole", "What a routed call may ask for here", least=1),
    Key("patch", "fields", "Fields that a request going here gets where the app did not set them"),
)
MIDDLEWARE: Final = (
    Key("headers", "switch", "Adds x-tierline-tier, x-tierline-source and x-tierline-cost-usd to responses"),
    Key("server_timing", "switch", "Adds Server-Timing to responses"),
    Key("busy_as_503", "switch", "Tells clients 503 where the API was busy"),
)
TABLES: Final = ("ladder", "labels", "policy", "routes", "budgets", "legality", "middleware")
"""The tables at the top."""
IN_CODE: Final = frozenset({
    "client", "sync_client", "classifier", "ledger", "prices", "secret", "outcomes", "tracer_provider",
    "meter_provider", "timing", "on_budget", "queue",
})  # fmt: skip
"""Arguments of a Router that are objects, or secret: a file has no word for them."""
