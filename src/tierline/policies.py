"""Policies: what a call may do, in the same words wherever it is written, and how several combine."""

from __future__ import annotations

import inspect
import sys
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, cast, overload

from tierline.binding import Context, context, enter
from tierline.budgets import Budget
from tierline.errors import ConfigurationError
from tierline.escalation.rules import Escalate, check_escalate, rules_of
from tierline.ladder import check_tokens
from tierline.values import LABELS, Label

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from types import FrameType, TracebackType

    from tierline.classify.base import Classifier
    from tierline.ladder import Ladder

Explicit = Literal["respect", "ceiling", "route"]
Speculate = bool | Literal["auto"]
_EXPLICIT: Final = ("respect", "ceiling", "route")
QUALITY: Final = 0.95
"""The share of the top tier's quality that a tier must reach, where no policy says it."""
_INNERMOST: Final = (
    "label",
    "task",
    "expected_output",
    "explicit_model",
    "classifier",
    "sticky",
    "per_step",
    "speculate",
    "escalate",
)
_MARK: Final = "__tierline_policies__"
_GENERATOR: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_RUNNERS: Final = ("anyio", "asgiref", "asyncio", "concurrent", "threading")
"""Modules that run a function in a context of its own."""

F = TypeVar("F")


class _Done:
    """An awaitable that is finished: FastAPI awaits a dependency on the loop instead of in a thread."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_DONE: Final[Awaitable[None]] = _Done()


class _NoParameters:
    """Gives instances (not the class) a signature of no parameters, so that FastAPI asks the request for none."""

    def __get__(self, instance: object, owner: object = None) -> inspect.Signature:
        if instance is None:
            raise AttributeError
        return inspect.Signature()


@dataclass(frozen=True)
class Policy:
    """What is allowed for a call. Policies only narrow: see `combine` for how several act together.

    - `floor`, `ceiling`: names of the lowest and highest tier; `tier` pins the call to one
    - `critical`: never downgraded for a budget, falls back upward only
    - `label`: what every request here is, so that nothing is classified
    - `task`: what these calls do, in a few words of the app's own; classifiers read it
    - `expected_output`: tokens of a usual answer here
    - `quality`: the share of the top tier's quality to reach where the route has taught what each tier is good enough
      for: above 0, at most 1. The strictest holds; where nobody says it, `QUALITY`
    - `explicit_model`: what a model id in the request means: `"respect"` (the default), `"ceiling"`, `"route"`
    - `classifier`: who labels requests here instead of the Router's classifier
    - `escalate`: a cheaper tier answers first, its answer is checked, and where it is poor the next tier answers. True
      for the usual checks, an `Escalate(…)`, or False; see `tierline.escalation`
    - `sticky`: a conversation stays on its tier (True), or each of its turns is routed by itself (False). Without it a
      move down is made where it pays, for the prompt caches that it throws away: see `tierline.conversation`
    - `per_step`: each step of an agent loop is routed by itself (True), or a tool loop keeps its tier; see
      `tierline.steps`
    - `speculate`: send the cheapest tier while Claude is asked for its verdict (True), or where that is worth its price
      (`"auto"`): see `tierline.speculation`
    - `max_tokens`: most tokens of output, by min with what the request asks
    - `budgets`: further budgets that these calls are charged to
    - `tags`: names for decisions and spans, as a mapping; kept as sorted pairs

    A policy is a FastAPI dependency, a decorator and a `with` block. Raises ConfigurationError for values
    that cannot be; tier names are checked against the ladder by the Router.
    """

    floor: str | None = None
    ceiling: str | None = None
    tier: str | None = None
    critical: bool = False
    label: Label | None = None
    task: str | None = None
    expected_output: int | None = None
    quality: float | None = None
    explicit_model: Explicit | None = None
    classifier: Classifier | None = None
    sticky: bool | None = None
    per_step: bool | None = None
    speculate: Speculate | None = None
    escalate: bool | Escalate | None = None
    max_tokens: int | None = None
    budgets: Sequence[Budget] = ()
    tags: Mapping[str, str] | tuple[tuple[str, str], ...] = field(default=())

    __signature__ = _NoParameters()

    def __post_init__(self) -> None:
        if callable(self.floor):
            raise ConfigurationError("policy is called with what it allows: write @policy(floor=…), not @policy")
        for name in ("floor", "ceiling", "tier", "task"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigurationError(f"policy: {name} must be a name, got {value!r}")
        if not isinstance(self.critical, bool):
            raise ConfigurationError(f"policy: critical must be True or False, got {self.critical!r}")
        for name in ("sticky", "per_step"):
            if (value := getattr(self, name)) not in (None, True, False):
                raise ConfigurationError(f"policy: {name} must be True, False or None, got {value!r:.80}")
        if self.sticky and self.per_step:
            raise ConfigurationError("policy: sticky=True keeps a tier, and per_step=True moves: leave one of them out")
        if not (self.speculate is None or isinstance(self.speculate, bool) or self.speculate == "auto"):
            raise ConfigurationError(
                f'policy: speculate must be True, False, "auto" or None, got {self.speculate!r:.80}'
            )
        check_escalate(self.escalate)
        if self.label is not None and self.label not in LABELS:
            raise ConfigurationError(f"policy: unknown label {self.label!r}: the labels are {', '.join(LABELS)}")
        if self.explicit_model is not None and self.explicit_model not in _EXPLICIT:
            raise ConfigurationError(
                f"policy: explicit_model must be one of {', '.join(_EXPLICIT)}, got {self.explicit_model!r}"
            )
        check_tokens(self.max_tokens, "policy: max_tokens")
        check_tokens(self.expected_output, "policy: expected_output")
        _check_quality(self.quality)
        if self.classifier is not None and not callable(getattr(self.classifier, "classify", None)):
            raise ConfigurationError(f"policy: classifier must be a classifier, got {self.classifier!r:.80}")
        try:
            pairs: Mapping[str, str] = dict(self.tags)
        except (TypeError, ValueError):
            raise ConfigurationError(f"policy: tags must be a mapping, got {self.tags!r:.80}") from None
        object.__setattr__(self, "tags", tuple(sorted((str(k), str(v)) for k, v in pairs.items())))
        if not isinstance(self.budgets, (tuple, list)) or not all(isinstance(b, Budget) for b in self.budgets):
            raise ConfigurationError(f"policy: budgets must be a list of Budget(…), got {self.budgets!r:.80}")
        object.__setattr__(self, "budgets", tuple(self.budgets))
        try:
            hash(self)
        except TypeError as error:
            raise ConfigurationError(f"policy: all that is in a policy must be hashable: {error}") from None

    def __repr__(self) -> str:
        shown = ((f.name, getattr(self, f.name)) for f in fields(self))
        return f"policy({', '.join(f'{name}={value!r}' for name, value in shown if value not in (None, False, ()))})"

    def check(self, ladder: Ladder, where: str) -> None:
        """ConfigurationError, beginning with `where`, for unknown tiers and a floor above the ceiling."""
        low = ladder.index(self.floor, f"{where}: floor") if self.floor else 0
        high = ladder.index(self.ceiling, f"{where}: ceiling") if self.ceiling else ladder.top
        if self.tier:
            ladder.index(self.tier, f"{where}: tier")
        if low > high:
            raise ConfigurationError(f"{where}: the floor {self.floor!r} is above the ceiling {self.ceiling!r}")
        if self.tier and not low <= ladder.index(self.tier, where) <= high:
            raise ConfigurationError(f"{where}: the pin {self.tier!r} is outside of its own floor and ceiling")

    # A dependency: `Depends(policy(…))`. A decorator: `@policy(…)`.
    @overload
    def __call__(self, /) -> Awaitable[None]: ...
    @overload
    def __call__(self, target: F, /) -> F: ...
    def __call__(self, target: F | None = None, /) -> F | Awaitable[None]:
        """Narrow the request that runs here, as a dependency; or mark and wrap an endpoint, as a decorator."""
        if target is not None:
            return _decorated(self, target)
        binding = context().binding
        if binding is None:
            raise ConfigurationError(f"{self!r} is a dependency here, but no TierlineMiddleware binds the request")
        binding.narrow(self)
        return _DONE

    # A block: `with policy(…):`.
    def __enter__(self) -> Self:
        now = context()
        frame = sys._getframe(1)  # noqa: SLF001  (the only way to see who entered)
        place = _place(frame)
        if place and now.binding is not None and not _is_manager(frame):
            # A generator is stepped in copies of the context, or leaks its own into its consumer: the
            # block is kept with the request instead, until the generator leaves it.
            _, depth = now.binding.blocks.get((id(self), place), (self, 0))
            now.binding.blocks[id(self), place] = (self, depth + 1)
        else:
            enter(Context(now.binding, (*now.blocks, (self, place)), now.own))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        now = context()
        place = _place(sys._getframe(1))  # noqa: SLF001
        # A generator may be closed inside another request: the blocks that stand there are not its own.
        kept = now.binding.blocks.pop((id(self), place), None) if now.binding is not None else None
        if now.binding is not None and kept is not None:
            if kept[1] > 1:
                now.binding.blocks[id(self), place] = (self, kept[1] - 1)
        elif (self, place) in now.blocks:
            last = len(now.blocks) - 1 - now.blocks[::-1].index((self, place))
            enter(Context(now.binding, now.blocks[:last] + now.blocks[last + 1 :], now.own))


policy = Policy
"""`policy(floor="sonnet")`: the way a Policy is written."""

# FastAPI runs what is not marked as a coroutine function in a thread: 110 µs instead of 10.
if sys.version_info >= (3, 12):
    inspect.markcoroutinefunction(Policy.__call__)
else:
    import asyncio.coroutines

    Policy.__call__._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001


def _check_quality(quality: object) -> None:
    number = isinstance(quality, (int, float)) and not isinstance(quality, bool)
    if quality is not None and not (number and 0 < quality <= 1):  # type: ignore[operator]
        raise ConfigurationError(f"policy: quality={quality!r:.60}: write a share above 0, of at most 1")


def _place(frame: FrameType) -> int:
    """What tells one generator's block from another's; 0 where the frame is no generator."""
    return id(frame) if frame.f_code.co_flags & _GENERATOR else 0


def _is_manager(frame: FrameType) -> bool:
    """Whether a generator is a context manager of contextlib's whose `with` stands in plain code.

    It is stepped in the context of that code, so that its block is one of that code's own.
    """
    caller = frame.f_back
    if _module(caller) != "contextlib":
        return False
    while caller is not None and (_module(caller) == "contextlib" or _module(caller.f_back) == "contextlib"):
        caller = caller.f_back
    # A thread, or a task, that does nothing but enter it: its context ends there.
    return caller is not None and not _place(caller) and _module(caller) not in _RUNNERS


def _module(frame: FrameType | None) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] if frame is not None else ""


def _decorated(rule: Policy, target: F) -> F:
    """Mark the function, for what runs after it returns, and wrap it, for what calls it without a framework."""
    function: Any = target
    if not callable(function):
        raise ConfigurationError(f"{rule!r} decorates a function or a class, got {target!r:.80}")
    marked = [_mark(layer, rule) for layer in _layers(target)]
    if not any(marked):
        raise ConfigurationError(f"{rule!r} cannot mark {target!r:.80}: decorate a function or a class around it")
    if inspect.isclass(target):
        return target
    # What is run where an object is called: that tells of which kind it is.
    plain = inspect.isroutine(function) or isinstance(function, partial)
    run: object = function if plain else type(function).__call__
    wrapper: Callable[..., Any]
    if inspect.isasyncgenfunction(run):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with rule:
                items = function(*args, **kwargs)
                step, value = items.asend, None
                while True:
                    try:
                        item = await step(value)
                    except StopAsyncIteration:
                        return
                    try:
                        step, value = items.asend, (yield item)
                    except GeneratorExit:
                        await items.aclose()
                        raise
                    except BaseException as error:  # noqa: BLE001  (thrown in: a dependency may roll back for it)
                        step, value = items.athrow, error

    elif inspect.isgeneratorfunction(run):

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with rule:
                return (yield from function(*args, **kwargs))

    elif inspect.iscoroutinefunction(run):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with rule:
                return await function(*args, **kwargs)

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with rule:
                return function(*args, **kwargs)

    wrapped = wraps(function)(wrapper)
    if not hasattr(function, "__name__"):
        # Frameworks call a partial or an object by its class, and so they do here.
        wrapped.__name__ = wrapped.__qualname__ = type(function).__name__
    with suppress(Exception):
        # Resolved here, where the module's names are at hand: frameworks look them up in the wrapper's.
        wrapped.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return cast("F", wrapped)


def _mark(layer: object, rule: Policy) -> bool:
    try:
        setattr(layer, _MARK, (rule, *getattr(layer, _MARK, ())))
    except (AttributeError, TypeError):
        return False
    return True


def _layers(target: object) -> Iterator[object]:
    """A callable, and all that it wraps."""
    seen = 0
    while target is not None and seen < 50:  # noqa: PLR2004  (a chain that long is a loop)
        yield target
        if isinstance(target, partial):
            target = target.func
        elif inspect.ismethod(target):
            target = target.__func__  # it takes the mark that its method cannot
        else:
            target = getattr(target, "__wrapped__", None)
        seen += 1


def marks_of(endpoint: object) -> tuple[Policy, ...]:
    """The policies that decorators put on an endpoint, outermost first."""
    return tuple(dict.fromkeys(p for layer in _layers(endpoint) for p in getattr(layer, _MARK, ())))


@dataclass(frozen=True, slots=True)
class Effective:
    """Several policies as one. `floor` and `ceiling` are places on the ladder, floor <= ceiling."""

    floor: int
    ceiling: int
    pinned: bool = False
    floored: bool = False
    """Whether a floor was written: an id cheaper than the whole ladder is then below it."""
    capped: bool = False
    """Whether a ceiling was written: an id dearer than the whole ladder is then above it."""
    critical: bool = False
    label: Label | None = None
    task: str | None = None
    expected_output: int | None = None
    quality: float = QUALITY
    explicit_model: Explicit = "respect"
    classifier: Classifier | None = None
    sticky: bool | None = None
    per_step: bool = False
    speculate: Speculate = False
    escalate: Escalate | None = None
    max_tokens: int | None = None
    budgets: tuple[Budget, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    reasons: tuple[str, ...] = ()


def combine(policies: Iterable[Policy], ladder: Ladder) -> Effective:
    """One policy out of many, outermost first. Pure.

    Floors and `quality` combine by max, ceilings and `max_tokens` by min, `critical` by any, budgets and tags by
    union. The outermost pin holds, moved by floors and ceilings. Where a floor meets a lower ceiling from another
    place, the floor wins. Of the rest (label, task, …) the innermost one holds.
    """
    low, high, pin = 0, ladder.top, None
    limits: list[int] = []
    shares: list[float] = []
    rest: dict[str, Any] = {}
    budgets: dict[Budget, None] = {}
    tags: dict[str, str] = {}
    critical = floored = capped = False
    for p in policies:
        if p.floor:
            low, floored = max(low, ladder.index(p.floor, f"{p!r}: floor")), True
        if p.ceiling:
            high, capped = min(high, ladder.index(p.ceiling, f"{p!r}: ceiling")), True
        if p.tier:
            place = ladder.index(p.tier, f"{p!r}: tier")
            pin = place if pin is None else pin
        if p.max_tokens is not None:
            limits.append(p.max_tokens)
        if p.quality is not None:
            shares.append(p.quality)
        for name in _INNERMOST:
            if (value := getattr(p, name)) is not None:
                rest[name] = value
        budgets.update(dict.fromkeys(p.budgets))
        tags.update(p.tags)
        critical = critical or p.critical
    rest["escalate"] = rules_of(rest.get("escalate"))
    reasons: list[str] = []
    if low > high:
        reasons.append(f"floor {ladder[low].name} is above ceiling {ladder[high].name}: the floor wins")
        high = low
    if pin is not None:
        held = max(low, min(high, pin))
        if held != pin:
            reasons.append(
                f"pin {ladder[pin].name} moved to {ladder[held].name} by the {'floor' if held > pin else 'ceiling'}"
            )
        low = high = held
    return Effective(
        floor=low,
        ceiling=high,
        pinned=pin is not None,
        floored=floored,
        capped=capped,
        critical=critical,
        quality=max(shares, default=QUALITY),
        max_tokens=min(limits, default=None),
        budgets=tuple(budgets),
        tags=tuple(sorted(tags.items())),
        reasons=tuple(reasons),
        **rest,
    )
