"""Where calls come in: for whom a call is, and what its mode makes of it."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tierline.binding import Binding, context
from tierline.call import AUTO
from tierline.errors import BUSY, BudgetExceededError, BusyError, TierlineError
from tierline.passing import pass_on
from tierline.run import CallRun
from tierline.values import Decision, Refusal

if TYPE_CHECKING:
    from tierline.attempts import Reply
    from tierline.binding import Context
    from tierline.call import Call
    from tierline.router import Router
    from tierline.upstream import Upstream

log: Final = logging.getLogger("tierline")


class Gate:
    """What the seam hands its requests to."""

    def __init__(self, router: Router[Any]) -> None:
        self._router = router
        self.binds = False
        """Whether an app runs, or anything has been bound: a call that belongs to nothing is then worth a word."""
        self._warned = False

    async def run(self, call: Call, upstream: Upstream) -> Reply:
        """Steps 2 to 8 of one call. Raises TierlineError where nothing may be sent."""
        now = context()
        binding = now.binding_of(self._router) or self.unbound(now)
        binding.prepare()
        if self._router.mode == "off":
            return await self._pass_on(call, upstream, now, binding, "mode off")
        run = None
        try:
            run = CallRun(self._router, call, upstream, now, binding)
            reply = await run.run()
        except Exception as error:
            ours = isinstance(error, TierlineError)
            # Once it was sent, only the money for a retry may have failed: what was sent before has failed for itself.
            if self._router.mode == "observe" and now.own is None and (ours or not (run and run.sent)):
                why = type(error).__name__
                log.warning("a call is sent unobserved: %s", f"{why}: {error}" if ours else why)
                sent = run.attempts if run is not None else 0
                return await self._pass_on(call, upstream, now, binding, f"only observed: {why}", sent)
            if isinstance(error, TierlineError):
                binding.failed(error)
            raise
        else:
            if reply.status in BUSY and binding.busy_as_503:
                binding.failed(BusyError(reply.status, reply.retry_after))
            return reply
        finally:
            if now.binding is None or binding.over:
                await self._router.forget(binding)

    async def body_for_count(self, call: Call, upstream: Upstream) -> dict[str, Any]:
        """The body of a free token count, as a call with it would be sent. Nobody is asked for that."""
        now = context()
        binding = now.binding_of(self._router) or self.unbound(now)
        binding.prepare()
        if self._router.mode == "off":
            return self._unrouted(call, now, binding)
        try:
            return await CallRun(self._router, call, upstream, now, binding).body_for_count()
        except Exception as error:
            if self._router.mode == "observe":
                return self._unrouted(call, now, binding)
            if isinstance(error, TierlineError):
                binding.failed(error)
            raise

    def refuse_unreadable(self, what: str) -> None:
        """BudgetExceededError where a hard budget holds for a request that cannot be read, and so not bounded."""
        if self._router.mode != "enforce":
            return
        now = context()
        binding = now.binding_of(self._router) or self.unbound(now)
        binding.prepare()
        found = now.own if now.own is not None else self._router.rules.admission(now, binding)
        for line in found.lines:
            if line.hard:
                refusal = Refusal(
                    line.budget, line.account, line.limit, 0, 0, None, unbounded=what, at=self._router.timing.now()
                )
                self._router.tally.refused()
                if (meter := self._router.meter) is not None:
                    meter.refused(self._router.ladder[0].name, found.route, found.tenant)
                self._router.metrics.refused(refusal)
                error = BudgetExceededError(refusal)
                binding.failed(error)
                raise error

    def unbound(self, now: Context) -> Binding:
        """A Binding for a call that has none: it is charged to the default accounts."""
        if self.binds and not self._warned and now.own is None:
            self._warned = True
            log.warning(
                "a call of Claude belongs to no request, and is charged to the default accounts: threads and "
                "executors of your own do not carry a request. Use asyncio.to_thread, or "
                "contextvars.copy_context().run; in jobs, `async with router.bind(tenant=…):`. This is said once"
            )
        return Binding(self._router)

    async def _pass_on(
        self, call: Call, upstream: Upstream, now: Context, binding: Binding, why: str, number: int = 0
    ) -> Reply:
        """Send a call as the app wrote it, after `number` attempts.

        It leaves a decision, for apps look at it, but one that knows no money.
        """
        body, ladder = self._unrouted(call, now, binding), self._router.ladder
        if now.own is None:
            model = str(body["model"])
            rung = ladder.rung_of(model)
            tier = ladder[ladder.top if rung is None else rung].name
            binding.record(
                Decision(self._router.next_id(), tier, model, tier, None, 0.0, "default", (why,), settled=True)
            )
        return await pass_on(body, upstream, self._router.timing, number)

    def _unrouted(self, call: Call, now: Context, binding: Binding) -> dict[str, Any]:
        """The body as the app wrote it. Something must stand for `auto`: the highest tier that may be used here."""
        if call.model != AUTO:
            return dict(call.body)
        highest = self._router.ladder.top
        with suppress(TierlineError):
            highest = self._router.rules.policy_of(now, binding).ceiling
        return {**call.body, "model": self._router.ladder[highest].model}
