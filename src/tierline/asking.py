"""Questions of Tierline's own to Claude: put for whoever pays for them, one or several in one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.binding import Context, OwnCall, context, enter
from tierline.blocking import GoneError
from tierline.classify.sheet import read_sheet, same_but_text, sheet_of
from tierline.errors import BudgetExceededError
from tierline.models import model_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Hashable, Sequence

    from tierline.budgets import Line
    from tierline.classify.base import Question
    from tierline.ladder import Tier
    from tierline.traffic.meter import Meter

ONE_TEXT: Final = (400, 413, 422)
"""Statuses of an answer that one text in a request may be the cause of."""


Lost = Callable[[int], None]
"""Told what a question cost, in nano-USD, whose answer nobody gets any more."""


def unpaid(_cost: int) -> None:
    """For those who do not ask what was lost."""


class Answers(NamedTuple):
    """What came of questions that were asked in one request.

    - `said` has the label and the confidence (0 to 1) for each, in order; None where there is none that counts
    - `cost` is what it cost in nano-USD, whatever came of it
    - `error` is why no answer came at all
    """

    said: Sequence[tuple[str, float] | None]
    cost: int
    error: Exception | None = None

    @property
    def alone(self) -> bool:
        """Whether one of them might be answered where it is asked alone."""
        error = self.error
        return (
            error is None
            or isinstance(error, (BudgetExceededError, GoneError))  # less money, or another thread
            or getattr(error, "status_code", None) in ONE_TEXT
        )


def shares_of(cost: int, count: int) -> list[int]:
    """A cost, divided among `count`: whole nano-USD that add up to it, and differ by 1 at most."""
    each, more = divmod(cost, count)
    return [each + (place < more) for place in range(count)]


class Desk(NamedTuple):
    """Where questions are put, and whose they are.

    `claude` asks with a body, within so many seconds (see `Upstream.ask`), and `client` is what it asks with. `tier` is
    who is asked. `lines` pay, for a call of `route` and `tenant`. `meter` counts what need not be asked.
    """

    claude: Callable[[dict[str, Any], float], Awaitable[Any]]
    client: Any
    tier: Tier
    lines: tuple[Line, ...]
    route: str | None
    tenant: str | None
    meter: Meter | None = None

    def looked_up(self, hit: bool) -> None:
        """A verdict was looked for in the cache."""
        if self.meter is not None:
            self.meter.looked_up(self.tier.name, self.route, self.tenant, hit=hit)

    @property
    def closed(self) -> str:
        """Why nothing can be asked here; empty where it can."""
        facts = model_of(self.tier.model)
        if facts is not None and facts.thinks != "asked" and not facts.quiet:
            # It would spend the few tokens of an answer on thinking.
            return f"{self.tier.name} always thinks"
        return ""

    def beside(self, question: Question) -> Hashable:
        """The same for two questions that may be asked in one request.

        They are one tenant's, who pays for them from the same accounts: nobody's text is shown beside another's, and
        no budget answers for another's.
        """
        return (self.client, self.tier, self.lines, self.route, self.tenant, same_but_text(question))

    async def put(self, questions: Sequence[Question], timeout: float, lost: Lost = unpaid) -> Answers:
        """Ask `questions` in one request, within `timeout` seconds. Nothing is raised but a cancellation.

        They differ in text and context alone. `lost` is told of what a request cost that was cancelled.
        """
        facts = model_of(self.tier.model)
        thinking = {"type": facts.quiet} if facts is not None and facts.thinks != "asked" else None
        own = OwnCall(self.tier.name, self.lines, self.route, self.tenant, timeout)
        before = context()
        enter(Context(own=own))
        try:
            body = sheet_of(questions, model=self.tier.model, thinking=thinking)
            message = await self.claude(body, timeout)
        except Exception as error:  # noqa: BLE001  (a budget's or the SDK's: who asked goes on without an opinion)
            return Answers([None] * len(questions), own.cost, error)
        except BaseException:
            lost(own.cost)
            raise
        finally:
            enter(before)
        return Answers(read_sheet(_text_of(message), questions), own.cost)


def _text_of(message: object) -> str:
    """The text of an answer. The SDK checks no answer, and what stands between may make anything of one."""
    content = getattr(message, "content", None)
    blocks = content if isinstance(content, list) else []
    texts = [getattr(block, "text", None) for block in blocks if getattr(block, "type", None) == "text"]
    return "".join([text for text in texts if isinstance(text, str)])
