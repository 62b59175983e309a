# Here, unlike elsewhere, also what future annotations do to decorated endpoints is tested.
from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import StreamingResponse
from hypothesis import given
from hypothesis import strategies as st
from starlette.endpoints import HTTPEndpoint
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tierline import Budget, Ladder, Policy, policy
from tierline.binding import Binding, Context, context, enter
from tierline.classify import FixedClassifier
from tierline.errors import ConfigurationError
from tierline.ladder import DEFAULT_LADDER
from tierline.policies import combine, marks_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

LADDER = Ladder.of(a="m1", b="m2", c="m3")
STRICT = policy(floor="c")
WARM = policy(floor="b")
OTHER = policy(ceiling="b")


class Owner:
    claude = None


def bound() -> Binding:
    """A request of its own, in the context that runs."""
    binding = Binding(Owner(), {"type": "http"})
    enter(Context(binding))
    return binding


def holding() -> tuple[Policy, ...]:
    """The policies that would hold for a call made here, as the Router collects them."""
    now = context()
    binding = now.binding
    blocks = tuple(rule for rule, _ in now.blocks)
    if binding is None:
        return blocks
    scope = binding.scope or {}
    return (
        *binding.narrowed,
        *marks_of(scope.get("endpoint")),
        *(rule for rule, _ in binding.blocks.values()),
        *blocks,
    )


def alone(function: Any, *args: Any) -> Any:
    """Run in a context of its own."""
    return contextvars.Context().run(function, *args)


class Bound:
    """What the middleware does, and no more: each request has a Binding of its own."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            enter(Context(Binding(Owner(), scope)))
        await self.app(scope, receive, send)


# What a policy is


@pytest.mark.parametrize(
    ("fields", "culprit"),
    [
        ({"floor": ""}, "floor"),
        ({"ceiling": 5}, "ceiling"),
        ({"tier": True}, "tier"),
        ({"task": ""}, "task"),
        ({"critical": 1}, "critical"),
        ({"label": "hard"}, "'hard'"),
        ({"label": ["simple"]}, "label"),
        ({"explicit_model": "no"}, "explicit_model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"expected_output": -1}, "expected_output"),
        ({"classifier": "keyword"}, "classifier"),
        ({"tags": "team"}, "tags"),
        ({"tags": 5}, "tags"),
        ({"tags": (("a",),)}, "tags"),
        ({"budgets": ["$5/day"]}, "budgets"),
        ({"budgets": Budget("$5/day")}, "budgets"),
    ],
)
def test_what_cannot_be_is_refused(fields: Any, culprit: str) -> None:
    """Values that cannot be are a ConfigurationError that names the field, where they are written."""
    with pytest.raises(ConfigurationError, match=culprit):
        policy(**fields)


def test_a_policy_is_hashable() -> None:
    """Policies of equal content are one key, tags and budgets included; what cannot be hashed is refused at once."""
    full = {"tags": {"team": "x", "app": "y"}, "budgets": [Budget("$5/day")], "classifier": FixedClassifier("simple")}
    assert len({policy(**full), policy(**full), policy(**full | {"tags": {"team": "z"}})}) == 2  # type: ignore[arg-type]
    assert policy(tags={"b": "1", "a": "2"}).tags == (("a", "2"), ("b", "1"))

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def classify(self) -> None:
            raise NotImplementedError

    with pytest.raises(ConfigurationError, match="hashable"):
        policy(classifier=Unhashable())  # type: ignore[arg-type]


def test_repr_shows_what_was_written() -> None:
    """A policy is shown as it was written."""
    assert repr(policy(floor="b", critical=True)) == "policy(floor='b', critical=True)"
    assert repr(policy()) == "policy()"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (policy(floor="x"), r"here: floor: there is no tier 'x'"),
        (policy(ceiling="x"), r"here: ceiling"),
        (policy(tier="x"), r"here: tier"),
        (policy(floor="c", ceiling="a"), r"here: the floor 'c' is above the ceiling 'a'"),
    ],
)
def test_check(rule: Policy, said: str) -> None:
    """Unknown tiers, and a floor above the ceiling in one place, are refused with the place."""
    with pytest.raises(ConfigurationError, match=said):
        rule.check(LADDER, "here")
    policy(floor="a", ceiling="c", tier="b").check(LADDER, "here")


# How several combine

names = st.one_of(st.none(), st.sampled_from("abc"))
narrow = st.builds(
    Policy,
    floor=names,
    ceiling=names,
    critical=st.booleans(),
    max_tokens=st.one_of(st.none(), st.integers(1, 50)),
    budgets=st.lists(st.sampled_from([Budget("$1/day"), Budget("$2/day")]), max_size=2),
)
pinned = st.builds(Policy, floor=names, ceiling=names, tier=names)


@given(st.lists(narrow, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_limits_does_not_matter(rules: list[Policy], dice: Any) -> None:
    """Floors, ceilings, caps, budgets and `critical` come out the same in any order."""
    found = combine(rules, LADDER)
    dice.shuffle(rules)
    again = combine(rules, LADDER)
    assert (found.floor, found.ceiling, found.max_tokens, found.critical) == (
        again.floor, again.ceiling, again.max_tokens, again.critical,
    )  # fmt: skip
    assert set(found.budgets) == set(again.budgets)
    assert (found.floored, found.capped) == (again.floored, again.capped)


@given(st.lists(st.one_of(narrow, pinned), max_size=4), st.one_of(narrow, pinned))
def test_policies_only_narrow(rules: list[Policy], more: Policy) -> None:
    """One policy more never lowers a floor, never lifts a cap, drops no budget; a ceiling yields to a floor only."""
    before, after = combine(rules, LADDER), combine([*rules, more], LADDER)
    assert after.floor <= after.ceiling
    written = max((LADDER.index(p.floor, "") for p in [*rules, more] if p.floor), default=0)
    highest = min((LADDER.index(p.ceiling, "") for p in [*rules, more] if p.ceiling), default=LADDER.top)
    assert after.floor >= written
    assert after.ceiling <= max(written, highest)
    if not before.pinned and not after.pinned:
        assert after.floor >= before.floor
        assert after.ceiling <= max(before.ceiling, after.floor)
    assert set(before.budgets) <= set(after.budgets)
    assert after.critical >= before.critical
    if before.max_tokens is not None:
        assert after.max_tokens is not None
        assert after.max_tokens <= before.max_tokens


@pytest.mark.parametrize(
    ("rules", "place", "reason"),
    [
        ([policy(tier="b")], 1, ""),
        ([policy(tier="b"), policy(tier="c")], 1, ""),
        ([policy(floor="c"), policy(tier="a")], 2, "pin a moved to c by the floor"),
        ([policy(ceiling="a"), policy(tier="c")], 0, "pin c moved to a by the ceiling"),
        ([policy(tier="a"), policy(floor="b")], 1, "pin a moved to b by the floor"),
        ([policy(floor="c"), policy(ceiling="a"), policy(tier="b")], 2, "pin b moved to c by the floor"),
    ],
)
def test_pins(rules: list[Policy], place: int, reason: str) -> None:
    """The outermost pin is floor and ceiling, moved by those that are written anywhere, with a reason."""
    found = combine(rules, LADDER)
    assert (found.floor, found.ceiling, found.pinned) == (place, place, True)
    assert (reason in found.reasons) if reason else not found.reasons


def test_the_floor_wins() -> None:
    """A floor that meets a lower ceiling from another place wins, and says so."""
    found = combine([policy(ceiling="a"), policy(floor="c")], LADDER)
    assert (found.floor, found.ceiling) == (2, 2)
    assert found.reasons == ("floor c is above ceiling a: the floor wins",)


def test_the_innermost_word_holds() -> None:
    """Of what has no order, the innermost holds; tags are united."""
    outer = policy(label="simple", task="x", explicit_model="route", tags={"a": "1", "b": "1"})
    inner = policy(label="complex", expected_output=5, tags={"b": "2"})
    found = combine([outer, inner], LADDER)
    assert (found.label, found.task, found.expected_output, found.explicit_model) == ("complex", "x", 5, "route")
    assert found.tags == (("a", "1"), ("b", "2"))


def test_an_unknown_tier_at_run_time_names_the_policy() -> None:
    """A policy that start-up could not see is checked when it is met."""
    with pytest.raises(ConfigurationError, match=r"policy\(floor='x'\): floor: there is no tier 'x'"):
        combine([policy(floor="x")], LADDER)


# As a dependency


def test_as_a_dependency() -> None:
    """On a route, a router and the app a policy narrows the request, asks for nothing, and shows nothing in OpenAPI."""
    app = FastAPI(dependencies=[Depends(policy(floor="a"))])
    router = APIRouter(dependencies=[Depends(OTHER)])

    @router.get("/x", dependencies=[Depends(STRICT)])
    async def endpoint(mine: Annotated[None, Depends(WARM)]) -> list[str]:
        return [repr(p) for p in holding()]

    app.include_router(router)
    app.add_middleware(Bound)
    with TestClient(app) as browser:
        answer = browser.get("/x")
        assert answer.status_code == 200, answer.text
        assert sorted(answer.json()) == sorted(map(repr, (policy(floor="a"), OTHER, STRICT, WARM)))
        operation = browser.get("/openapi.json").json()["paths"]["/x"]["get"]
    assert "parameters" not in operation
    assert "requestBody" not in operation
    assert "422" not in operation["responses"]


def test_a_dependency_runs_on_the_loop() -> None:
    """FastAPI awaits a policy where it is, instead of starting a thread for it."""
    app = FastAPI()
    seen: list[int] = []

    class Watched(Binding):
        def narrow(self, policy: Policy) -> None:
            seen.append(threading.get_ident())

    @app.get("/", dependencies=[Depends(STRICT)])
    async def endpoint() -> None:
        seen.append(threading.get_ident())

    class Middleware(Bound):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            enter(Context(Watched(Owner(), scope)))
            await self.app(scope, receive, send)

    app.add_middleware(Middleware)
    TestClient(app).get("/")
    assert len(seen) == 2
    assert len({*seen}) == 1


def test_a_dependency_without_a_request_says_so() -> None:
    """Without the middleware a dependency has nothing to narrow, and does not pretend to."""
    with pytest.raises(ConfigurationError, match="TierlineMiddleware"):
        alone(STRICT)


def test_only_instances_have_a_signature_of_no_parameters() -> None:
    """The class still shows its own parameters, to people and tools."""
    assert list(inspect.signature(STRICT).parameters) == []
    assert "floor" in inspect.signature(Policy).parameters


# As a decorator


async def asked(question: Question, page: int = 1) -> list[str]:
    """An endpoint with annotations that are text."""
    return [question.text, str(page), *map(repr, holding())]


class Question:
    def __init__(self, text: str = "") -> None:
        self.text = text


@pytest.mark.parametrize("outer", [True, False])
def test_as_a_decorator_in_either_order(outer: bool) -> None:
    """Above or below the framework's decorator, the policy holds, and the endpoint's parameters are its own."""
    app = FastAPI()

    async def endpoint(page: int, text: Annotated[str, Depends(lambda: "t")]) -> list[str]:
        return [str(page), text, *map(repr, holding())]

    if outer:
        STRICT(app.get("/x")(endpoint))
    else:
        app.get("/x")(STRICT(endpoint))
    app.add_middleware(Bound)
    with TestClient(app) as browser:
        answer = browser.get("/x?page=3")
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == {"3", "t", repr(STRICT)}
        assert browser.get("/x").status_code == 422
        parameters = browser.get("/openapi.json").json()["paths"]["/x"]["get"]["parameters"]
    assert [p["name"] for p in parameters] == ["page"]


def test_annotations_of_another_module_are_resolved() -> None:
    """Future annotations are resolved where the endpoint was written."""
    signature = inspect.signature(STRICT(asked))
    assert signature.parameters["question"].annotation is Question
    assert signature.return_annotation == list[str]


def test_annotations_that_cannot_be_resolved_are_left() -> None:
    """An annotation that only a type checker can see does not stop the decorator."""

    async def endpoint(x: Missing, y: inspect.Nothing) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    assert list(inspect.signature(STRICT(endpoint)).parameters) == ["x", "y"]


def test_helpers_are_wrapped() -> None:
    """Functions that no framework knows hold their policy while they run, and no longer; generators until they end."""

    async def scenario() -> None:
        @STRICT
        async def plain() -> tuple[Policy, ...]:
            await asyncio.sleep(0)
            return holding()

        @STRICT
        def sync() -> tuple[Policy, ...]:
            return holding()

        @STRICT
        def steps() -> Iterator[Any]:
            yield holding()
            yield holding()

        @STRICT
        async def asteps() -> AsyncIterator[Any]:
            yield holding()
            yield holding()

        class Callable:
            async def __call__(self) -> tuple[Policy, ...]:
                await asyncio.sleep(0)
                return holding()

            def method(self) -> tuple[Policy, ...]:
                return holding()

        part = STRICT(functools.partial(plain.__wrapped__))  # type: ignore[attr-defined]
        for request in (False, True):
            if request:
                bound()
            assert STRICT in await plain()
            assert STRICT in sync()
            assert [STRICT in seen for seen in steps()] == [True, True]
            assert [STRICT in seen async for seen in asteps()] == [True, True]
            assert STRICT in await part()
            assert STRICT in await STRICT(Callable())()
            assert STRICT in STRICT(Callable().method)()
            assert holding() == ()
        assert inspect.iscoroutinefunction(STRICT(Callable()))
        assert inspect.isasyncgenfunction(asteps)
        assert inspect.isgeneratorfunction(steps)
        assert marks_of(STRICT(Callable().method)) == (STRICT,)

    alone(asyncio.run, scenario())


def test_what_is_no_function_is_refused() -> None:
    """Whoever decorates a value is told so, and whoever decorates what cannot be marked: no floor is lost silently."""
    with pytest.raises(ConfigurationError, match="'text'"):
        STRICT("text")

    class Slotted:
        __slots__ = ()

        def __call__(self) -> None: ...

    with pytest.raises(ConfigurationError, match="around it"):
        STRICT(Slotted())


def test_a_bound_method_is_marked() -> None:
    """The function of a method takes the mark, so that it holds where the method itself was registered before."""

    class Endpoints:
        def answer(self) -> tuple[Policy, ...]:
            return holding()

        @classmethod
        def all(cls) -> None: ...

    endpoints = Endpoints()
    registered = endpoints.answer
    wrapped = STRICT(endpoints.answer)
    STRICT(Endpoints.all)
    assert marks_of(registered) == marks_of(wrapped) == marks_of(Endpoints.all) == (STRICT,)
    assert wrapped.__name__ == "answer"


def test_marks_reach_through_every_layer() -> None:
    """Marks are found through partials and wrappers, outermost first, each once, and classes hand them on."""

    def f() -> None:
        pass

    both = STRICT(OTHER(f))
    assert marks_of(both) == marks_of(functools.partial(both)) == (STRICT, OTHER)
    assert set(marks_of(f)) == {STRICT, OTHER}
    assert marks_of(STRICT(both)) == (STRICT, OTHER)
    assert marks_of(None) == marks_of(5) == ()

    @STRICT
    class Base:
        pass

    class Child(Base):
        pass

    WARM(Child)
    assert marks_of(Base) == (STRICT,)
    assert marks_of(Child) == (WARM, STRICT)


def test_a_loop_of_wrappers_ends() -> None:
    """A function that wraps itself does not hang anybody."""

    def f() -> None:
        pass

    f.__wrapped__ = f  # type: ignore[attr-defined]
    assert marks_of(f) == ()


def test_a_decorated_yield_dependency_meets_its_errors() -> None:
    """An error that the framework throws into an async generator reaches the function that was decorated."""
    app = FastAPI()
    seen: list[str] = []

    @STRICT
    async def session() -> AsyncIterator[str]:
        try:
            yield "session"
        except ValueError as error:
            seen.append(f"rolled back for {error}")
            raise
        finally:
            seen.append("closed")

    @app.get("/")
    async def endpoint(mine: str = Depends(session)) -> None:  # noqa: FAST002  (a local name)
        raise ValueError(mine)

    with pytest.raises(ValueError, match="session"):
        TestClient(app).get("/")
    assert seen == ["rolled back for session", "closed"]


async def test_a_decorated_async_generator_is_one() -> None:
    """Sending, throwing and closing go through to the generator inside."""
    seen: list[Any] = []

    @STRICT
    async def echo() -> Any:
        try:
            while True:
                try:
                    seen.append((yield len(seen)))
                except KeyError:
                    seen.append("thrown")
        finally:
            seen.append("closed")

    items = echo()
    assert await items.asend(None) == 0
    assert await items.asend("x") == 1
    assert await items.athrow(KeyError()) == 2
    await items.aclose()
    assert seen == ["x", "thrown", "closed"]
    assert holding() == ()


def test_streams_classes_and_callables_of_frameworks() -> None:
    """Bodies that run after their endpoint, endpoint classes and callables keep the policy of their decorator."""

    @STRICT
    async def streamed(request: Any) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield repr(holding())

        return StreamingResponse(body())

    @STRICT
    def streamed_sync(request: Any) -> StreamingResponse:
        def body() -> Iterator[str]:
            yield repr(holding())

        return StreamingResponse(body())

    @STRICT
    class View(HTTPEndpoint):
        async def get(self, request: Any) -> JSONResponse:
            return JSONResponse(repr(holding()))

    class Called:
        async def __call__(self, request: Any) -> JSONResponse:
            return JSONResponse(repr(holding()))

    from starlette.applications import Starlette

    part = functools.partial(lambda request, word: JSONResponse(word + repr(holding())), word="w")
    endpoints = [streamed, streamed_sync, View, STRICT(Called()), STRICT(part)]
    app = Starlette(routes=[Route(f"/{i}", e, methods=["GET"]) for i, e in enumerate(endpoints)])
    app.add_middleware(Bound)  # type: ignore[arg-type]
    with TestClient(app) as browser:
        for i in range(len(endpoints)):
            answer = browser.get(f"/{i}")
            assert answer.status_code == 200
            assert repr(STRICT) in answer.text, i


# As a block


@pytest.mark.parametrize("request_bound", [True, False])
def test_blocks_nest(request_bound: bool) -> None:
    """Blocks hold inside and not outside, in order, one of equal ones at a time, through errors too."""

    def scenario() -> None:
        if request_bound:
            bound()
        with STRICT as entered:
            assert entered is STRICT
            with OTHER, STRICT:
                assert holding() == (STRICT, OTHER, STRICT)
            assert holding() == (STRICT,)
            with pytest.raises(KeyError), OTHER:
                raise KeyError
            assert holding() == (STRICT,)
        assert holding() == ()

    alone(scenario)


@pytest.mark.parametrize("request_bound", [True, False])
def test_a_block_never_leaks_into_a_sibling(request_bound: bool) -> None:
    """Of many tasks at once, each holds its own blocks only; a task that is started inside one has it."""

    async def one(rule: Policy, turns: int) -> None:
        with rule:
            for _ in range(turns):
                await asyncio.sleep(0)
                assert holding() == (STRICT, rule)
        assert holding() == (STRICT,)

    async def scenario() -> None:
        if request_bound:
            bound()
        with STRICT:
            rules = [policy(task=str(n)) for n in range(20)]
            await asyncio.gather(*(one(rule, n % 5) for n, rule in enumerate(rules)))
            assert holding() == (STRICT,)
        assert holding() == ()

    alone(asyncio.run, scenario())


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30))
def test_generators_of_many_requests(steps: list[tuple[int, bool]]) -> None:
    """Sync generators, stepped in copies of contexts as Starlette does, hold their block for their own request only."""

    def body() -> Iterator[tuple[Policy, ...]]:
        with STRICT:
            while True:
                yield holding()

    contexts = [contextvars.Context() for _ in range(4)]
    for c in contexts:
        c.run(bound)
    running = [body() for _ in range(4)]
    begun: set[int] = set()
    for n, close in steps:
        if close:
            contexts[n].copy().run(running[n].close)
            running[n] = body()
            begun.discard(n)
        else:
            assert contexts[n].copy().run(next, running[n]) == (STRICT,)
            begun.add(n)
        for m in range(4):
            assert contexts[m].run(holding) == ((STRICT,) if m in begun else ())


@pytest.mark.parametrize("kind", ["block", "generator"])
def test_a_generator_closed_inside_another_request_leaves_that_one_alone(kind: str) -> None:
    """Garbage collection may close one request's generator inside another: the blocks there stay."""

    def body() -> Iterator[None]:
        with STRICT:
            yield

    mine, theirs = contextvars.Context(), contextvars.Context()
    stale, live = body(), body()

    def first() -> None:
        bound()
        next(stale)

    def second() -> None:
        bound()
        if kind == "block":
            with STRICT:
                stale.close()
                assert holding() == (STRICT,)
        else:
            next(live)
            stale.close()
            assert holding() == (STRICT,)
            live.close()
        assert holding() == ()

    mine.run(first)
    theirs.run(second)
    assert mine.run(holding) == (STRICT,)


def test_an_async_generator_does_not_leak_into_its_consumer() -> None:
    """A block in an async generator holds for its request until it ends, also where the consumer changes tasks."""

    async def body() -> AsyncIterator[tuple[Policy, ...]]:
        with STRICT:
            yield holding()
            yield holding()

    async def scenario() -> None:
        binding = bound()
        items = body()
        assert await anext(items) == (STRICT,)
        assert context().blocks == ()
        assert await asyncio.create_task(anext(items)) == (STRICT,)  # type: ignore[arg-type]
        await asyncio.create_task(items.aclose())  # type: ignore[attr-defined]
        assert holding() == ()
        assert binding.blocks == {}

    alone(asyncio.run, scenario())


def test_one_policy_twice_in_a_generator() -> None:
    """Leaving the inner of two equal blocks of a generator leaves the outer one standing."""
    binding = Binding(None)  # type: ignore[arg-type]
    rule = policy(floor="opus")
    enter(Context(binding))

    def steps() -> Iterator[int]:
        with rule:
            with rule:
                yield len(binding.blocks)
            yield len(binding.blocks)
        yield len(binding.blocks)

    try:
        assert list(steps()) == [1, 1, 0]
    finally:
        enter(Context())


def test_a_pin_outside_of_its_own_limits() -> None:
    """A pin that its own floor or ceiling would move is a mistake where it is written."""
    with pytest.raises(ConfigurationError, match="pin"):
        policy(floor="opus", tier="haiku").check(DEFAULT_LADDER, "here")
