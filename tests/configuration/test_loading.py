"""A Router that is set up in a file: what it becomes, what stands over it, and what is said of what is wrong."""

from __future__ import annotations

import json
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tierline import Budget, Ladder, Policy, Router, Tier
from tierline.asgi import TierlineMiddleware
from tierline.configuration import keys, load
from tierline.configuration.schema import schema
from tierline.errors import ConfigurationError
from tierline.escalation import Escalate

if TYPE_CHECKING:
    from collections.abc import Sequence

WHOLE = """
mode = "observe"
min_confidence = 0.7
traffic = true
shadow = 0.01
shadow_budget = "$1/day"

[ladder]
small = "claude-haiku-5-5"
large = { model = "claude-opus-5-5", max_tokens = 4000, patch = { output_config = { effort = "low" } } }

[labels]
moderate = "large"

[policy]
ceiling = "large"
speculate = "auto"
tags = { team = "desk" }

[routes."/contracts/*"]
floor = "large"
critical = true
escalate = { graded = true, threshold = 4, phrases = ["weiß ich nicht"] }

[[routes."/contracts/*".budgets]]
amount = "$9/month"
name = "contracts"

[routes."/sums"]
label = "simple"
escalate = true

[[budgets]]
amount = "$50/day"
name = "all"
timezone = "Europe/Berlin"
alert_at = [0.5, 1.0]

[[budgets]]
amount = "$2/hour"
per = "tenant"
name = "plan"
hard = false
downgrade_at = false

[legality]
sampling = "raise"

[middleware]
headers = true
"""

TWICE = "[[budgets]]\namount = '$1'\n[[budgets]]\namount = '$2'\nname = '$1'"
ABOVE = "[[budgets]]\namount = '$1'\ndowngrade_at = 0.9\ncheapest_at = 0.5"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "tierline.toml") -> Path:
    Path(name).write_text(text, "utf-8")
    return Path(name)


def test_a_whole_file() -> None:
    """Everything of it arrives, as if it stood in code."""
    write(WHOLE)
    config = load(environ={})
    router = config.router()
    assert (router.mode, router.min_confidence, router.meter is not None) == ("observe", 0.7, True)
    effort = {"output_config": {"effort": "low"}}
    ladder = Ladder(
        Tier("small", "claude-haiku-5-5"), Tier("large", "claude-opus-5-5", 4_000, effort), labels={"moderate": "large"}
    )
    assert (router.ladder.tiers, router.ladder.labels) == (ladder.tiers, ladder.labels)
    assert router.policy == Policy(ceiling="large", speculate="auto", tags={"team": "desk"})
    assert router.budgets == (
        Budget("$50/day", name="all", timezone="Europe/Berlin", alert_at=(0.5, 1.0)),
        Budget("$2/hour", "tenant", "plan", hard=False, downgrade_at=None),
    )
    assert router.legality["sampling"] == "raise"
    escalate = Escalate(graded=True, threshold=4, phrases=("weiß ich nicht",))
    contracts = Policy(floor="large", critical=True, escalate=escalate, budgets=[Budget("$9/month", name="contracts")])
    assert config.middleware == {
        "headers": True,
        "routes": {"/contracts/*": contracts, "/sums": Policy(label="simple", escalate=True)},
    }
    TierlineMiddleware(lambda *_: None, router=router, **config.middleware)  # type: ignore[arg-type, return-value]


def test_code_over_environment_over_file() -> None:
    """Each stands over what is under it, key by key."""
    write('min_confidence = 0.5\nlearn_after = 7\ncache_size = 10\nstore = "memory://"')
    environ = {
        "TIERLINE_LEARN_AFTER": "8",
        "TIERLINE_CACHE_SIZE": "20",
        "TIERLINE_TRAFFIC": "on",
        "TIERLINE_JOURNAL": "",
    }
    config = load(environ=environ)
    router = config.router(learn_after=9)
    assert (router.min_confidence, router.learn_after, config.options["cache_size"]) == (0.5, 9, 20)
    assert config.variables == {
        "learn_after": "TIERLINE_LEARN_AFTER", "cache_size": "TIERLINE_CACHE_SIZE", "traffic": "TIERLINE_TRAFFIC",
    }  # fmt: skip
    for name, text, says in (
        ("TIERLINE_TRAFFIC", "perhaps", "TIERLINE_TRAFFIC is 'perhaps': write true or false"),
        ("TIERLINE_LEARN_AFTER", "x", "write a whole number of at least 1"),
        ("TIERLINE_MIN_CONFIDENCE", "7", "TIERLINE_MIN_CONFIDENCE is 7.0: write a number from 0 to 1"),
        ("TIERLINE_MIN_CONFIDENCE", "nan", "write a number from 0 to 1"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            load(environ={name: text})


def test_where_the_file_is() -> None:
    """Named, by the environment, tierline.toml, pyproject.toml, or none."""
    assert load(environ={}).path is None
    write("[project]\nname = 'x'\n", "pyproject.toml")
    assert load(environ={}).path is None
    write("[project]\nname = 'x'\n\n[tool.tierline]\nlearn_after = 3\n", "pyproject.toml")
    assert load(environ={}).options == {"learn_after": 3}
    write("learn_after = 4")
    assert load(environ={}).options == {"learn_after": 4}
    write("learn_after = 5", "other.toml")
    assert load(environ={"TIERLINE_CONFIG": "other.toml"}).options == {"learn_after": 5}
    assert load("tierline.toml", environ={"TIERLINE_CONFIG": "other.toml"}).options == {"learn_after": 4}
    write(
        "[project]\nname = 'x'\n\n[tool.tierline]\nlearn_after = 3\n\n[tool.tierline.policy]\nflor = 'x'\n",
        "pyproject.toml",
    )
    with pytest.raises(
        ConfigurationError, match=r"^pyproject.toml, line 8: policy.flor: is no key here: did you mean floor\?$"
    ):
        load("pyproject.toml", environ={})


def test_budgets_are_not_passed_over() -> None:
    """In a pyproject.toml that is no TOML, or has them no more: an app must not start without its limits."""
    write("[tool.other\n", "pyproject.toml")
    assert load(environ={}).path is None
    write("tool = 3\n", "pyproject.toml")
    assert load(environ={}).path is None
    write("[[tool.tierline.budgets]]\namount = '$5/day'\n\n[broken\n", "pyproject.toml")
    with pytest.raises(ConfigurationError, match=r"^pyproject.toml is no TOML: .*line 4"):
        load(environ={})
    write("[[tool.tierline.budgets]]\namount = '$5/day'\nname = 'all'\n", "pyproject.toml")
    config = load(environ={})
    write("[project]\nname = 'x'\n", "pyproject.toml")
    for again in (config.reload, lambda: load("pyproject.toml", environ={})):
        with pytest.raises(ConfigurationError, match=r"^pyproject.toml has no table \[tool.tierline\]"):
            again()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('\nmode = "enforse"', 'line 2: mode: is "enforse": write one of enforce, observe, off'),
        ("min_confidence = 1.7", "line 1: min_confidence: is 1.7: write a number from 0 to 1"),
        ("traffic = 1", "line 1: traffic: is 1: write true or false"),
        ("learn_after = true", "line 1: learn_after: is true: write a whole number of at least 1"),
        ("learn_after = 1.5", "line 1: learn_after: is 1.5: write a whole number"),
        (f"cache_ttl = 1{'0' * 400}", "line 1: cache_ttl: is 1000"),
        ("explore = nan", "line 1: explore: is NaN"),
        ('store = ""', 'line 1: store: is "": write a text'),
        ('store = ["redis://:s3cret@host"]', "line 1: store: is something else: write a text"),
        ('store = {url = "redis://:s3cret@host"}', "line 1: store: is something else: write a text"),
        ('stroe = "x"', "line 1: stroe: is no key here: did you mean store?"),
        ("secret = 'x'", "line 1: secret: is no key here"),
        ("[policy]\n\nfloor = 3", "line 3: policy.floor: is 3: write a text"),
        ("[policy]\nquality = true", "line 2: policy.quality: is true"),
        ('[policy]\nspeculate = "yes"', 'policy.speculate: is "yes": write one of auto, or true or false'),
        ("[policy]\nescalate = 3", "policy.escalate: is 3: write a table, or true or false"),
        ("[policy.escalate]\ngrade = true", "line 2: policy.escalate.grade: is no key here: did you mean graded?"),
        ('[policy]\nfloor = "sonnett"', "line 2: policy.floor: policy: floor: there is no tier 'sonnett'"),
        ('[policy]\nfloor = "opus"\nceiling = "haiku"', "line 2: policy.floor: policy: the floor 'opus' is above"),
        ("policy = 3", "line 1: policy: is 3: write a table, [policy]"),
        ('[routes."/a"]\nflor = "x"', "line 2: routes.'/a'.flor: is no key here: did you mean floor?"),
        ('[routes]\n"/a" = 3', "line 2: routes.'/a': is 3: write a table"),
        ("[routes.a]\nfloor = 'opus'", "line 1: routes: routes: a pattern begins with '/', got 'a'"),
        ("[[budgets]]\nname = 'x'", 'line 1: budgets number 1: has no amount: write amount = "$5/day"'),
        ("[[budgets]]\namount = '$1'\n[[budgets]]\namount = '$5/dya'", "line 4: budgets number 2.amount: '$5/dya':"),
        (TWICE, "line 1: budgets: two budgets are called '$1'"),
        ("[[budgets]]\namount = '$1'\ndowngrade_at = true", "line 3: budgets number 1.downgrade_at: is true: write"),
        (ABOVE, "line 3: budgets number 1.downgrade_at: budget '$1'"),
        ("[[budgets]]\namount = '$1'\nper = 'user'", 'line 3: budgets number 1.per: is "user": write one of tenant,'),
        ("budgets = 3", "line 1: budgets: is 3: write [[budgets]] above each"),
        ("[ladder]\nhaiku = 3", 'line 2: ladder.haiku: is 3: write haiku = "claude-…"'),
        ("[ladder.haiku]\nmax_tokens = 3", "line 1: ladder.haiku: has no model"),
        ("[ladder]\nhaiku = 'auto'", "line 2: ladder.haiku: tier 'haiku': a tier needs a real model id"),
        ("[labels]\neasy = 'haiku'", "line 2: labels.easy: is no key here"),
        ("[legality]\nsampling = 'ignore'", 'line 2: legality.sampling: is "ignore": write one of rewrite,'),
        ("[middleware]\nheader = true", "line 2: middleware.header: is no key here: did you mean headers?"),
        ("a = = 1", "is no TOML: Invalid value (at line 1, column 5)"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_its_line(text: str, says: str) -> None:
    """File, line and key, and what to write."""
    write(text)
    with pytest.raises(ConfigurationError) as raised:
        load(environ={})
    assert str(raised.value).startswith("tierline.toml")
    assert says in str(raised.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    """In the order of the file."""
    write('traffic = 1\n[[budgets]]\nper = 3\n[policy]\nflor = "x"\n')
    with pytest.raises(ConfigurationError) as raised:
        load(environ={})
    said = str(raised.value).splitlines()
    assert [line.partition(":")[0] for line in said] == [
        "tierline.toml, line 1", "tierline.toml, line 2", "tierline.toml, line 3", "tierline.toml, line 5",
    ]  # fmt: skip


def test_what_only_a_router_can_say() -> None:
    """It has the line too; what code has said has none."""
    write("\nshadow = 0.1")
    with pytest.raises(ConfigurationError, match=r"^tierline.toml, line 2: shadow: shadow=0.1 needs a budget"):
        load(environ={}).router()
    write("learn_after = 3")
    with pytest.raises(ConfigurationError, match=r"^shadow=0.1 needs a budget"):
        load(environ={}).router(shadow=0.1)
    for text, path in (("", "nothing.toml"), ("\xff", "latin.toml")):
        if text:
            Path(path).write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigurationError, match=f"{path} cannot be read"):
            load(path, environ={})


# The description is whole


@pytest.mark.parametrize(
    ("described", "code", "there"),
    [
        (keys.ROUTER, {*keys.IN_CODE, "ladder", "policy", "budgets", "legality"}, signature(Router).parameters),
        (keys.POLICY, {"classifier", "budgets"}, {each.name for each in fields(Policy)}),
        (keys.ESCALATE, {"check", "check_timeout"}, {each.name for each in fields(Escalate)}),
        (keys.BUDGET, {"_fixed"}, {each.name for each in fields(Budget)}),
        (keys.TIER, {"name"}, {each.name for each in fields(Tier)}),
        (keys.MIDDLEWARE, {"app", "router", "tenant", "routes"}, signature(TierlineMiddleware).parameters),
    ],
)
def test_nothing_is_forgotten(described: Sequence[keys.Key], code: set[str], there: Any) -> None:
    """What code may say has a key, or a reason to have none."""
    assert {key.name for key in described} | code == set(there)
    assert len({key.name for key in described}) == len(described)


def test_the_schema() -> None:
    """It has every key, allows no other, and says of each what it is."""
    found = schema()
    assert set(found["properties"]) == {key.name for key in keys.ROUTER} | set(keys.TABLES)
    assert found["additionalProperties"] is False
    assert found["properties"]["mode"]["enum"] == ["enforce", "observe", "off"]
    assert found["properties"]["explore"] == {
        "type": "number", "minimum": 0, "maximum": 0.01, "description": keys.ROUTER[7].help,
    }  # fmt: skip
    policy = found["properties"]["routes"]["patternProperties"]["^/"]["properties"]
    assert policy["escalate"]["anyOf"][0]["properties"]["threshold"]["maximum"] == 5
    assert policy["budgets"]["items"]["required"] == ["amount"]
    assert found["properties"]["budgets"]["items"]["properties"]["downgrade_at"]["anyOf"][1] == {"const": False}
    assert json.loads(json.dumps(found)) == found


def test_names_of_variables_keep_to_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """A name with a line break, or with bytes that are no text, is told escaped."""
    load(environ={"TIERLINE_A\nERROR all is lost": "1", "TIERLINE_\udcff": "1", "TIERLINE_CONFIG": ""})
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all(line.isprintable() for line in said)
