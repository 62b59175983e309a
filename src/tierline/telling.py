"""Step 8 of a call: what is said of it. Its decision, and everything that counts it once it is over."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from tierline.attempts import LEFT
from tierline.budgets import first_fit
from tierline.caching import gain
from tierline.call import turn_of
from tierline.report import Downgrade
from tierline.usage import StreamReader
from tierline.values import Decision, Observed, Terms, Usage

if TYPE_CHECKING:
    from tierline.budgets import Fit
    from tierline.decisionlog import DecisionLog
    from tierline.run import CallRun
    from tierline.values import Offer

_USUAL: Final = Terms(geo="global")


def decision_of(run: CallRun, *, settled: bool, why: str = "") -> Decision:
    """What has happened to a call until now. `settled` says that no more is to come."""
    router, found, dispatch, asked = run.router, run.plan, run.dispatch, run.inquiry
    beside = run.speculation.attempts if run.speculation is not None else ()
    own = tuple(dispatch.attempts) if dispatch is not None else ()
    attempts = (*beside, *own) if beside else own
    offer = dispatch.offer if dispatch is not None else None
    first = found.offers[0] if found is not None else None
    taken = offer or first
    answered = own[0].usage if own else Usage()
    for attempt in own[1:]:
        answered = answered + attempt.usage
    usage = answered
    for attempt in beside:
        usage = usage + attempt.usage
    spent = asked.spent if asked is not None else 0
    graded = run.chain.spent if run.chain is not None else 0
    cost, estimated = spent + graded, False
    for attempt in attempts:
        cost += attempt.cost
        estimated = estimated or attempt.estimated
    answer = (dispatch.answered if dispatch is not None else None) or (own[-1] if own else None)
    known = settled and answer is not None and answer.outcome == "ok"
    if settled and answer is not None:
        # One tier alone would have answered once, and not beside a verdict.
        run.costs = _all_on(run, answer.usage if run.chain is not None and run.chain.let_go else answered)
    top = run.costs.get(router.ladder.tiers[-1].name) if known else None
    held = dispatch.reservation if dispatch is not None else None
    decision = Decision(
        id=dispatch.key if dispatch is not None else router.next_id(),
        tier=taken.tier if taken is not None else router.ladder[run.policy.floor].name,
        model=taken.model if taken is not None else run.call.model,
        requested_tier=found.requested if found is not None else router.ladder[run.policy.floor].name,
        label=found.label if found is not None else None,
        confidence=found.confidence if found is not None else 0.0,
        source=found.source if found is not None else "default",
        reasons=_reasons(run, offer, why),
        attempts=attempts,
        usage=usage,
        cost=cost,
        saved=top - cost if top is not None else 0,
        classifier_cost=spent,
        grading_cost=graded,
        latency_s=_took(run) if run.took is None else run.took,
        classifier_latency_s=asked.seconds if asked is not None else 0.0,
        budgets=held.remaining if held is not None else (),
        estimated=estimated,
        settled=settled,
        route=run.route,
        tenant=run.tenant,
        tags=run.policy.tags,
        run=run.named,
        forecast=asked.forecast if asked is not None else None,
        explored=found is not None and found.explored and taken is not None and taken.tier == found.requested,
        trace_id=run.trace.trace_id,
        observed=_observed(run, cost - spent, spent, known=bool(known)) if run.observing else None,
    )
    if run.asked is not None and offer is not None and router.ladder.rung_of(offer.model) is not None:
        decision.with_grader(run.asked)
    return decision


def _reasons(run: CallRun, offer: Offer | None, why: str) -> tuple[str, ...]:
    """What moved a call, in the order in which it did; `offer` is the one that was taken."""
    reasons: list[str] = []
    if run.inquiry is not None:
        reasons += run.inquiry.reasons
    reasons += run.plan.reasons if run.plan is not None else run.policy.reasons
    if run.speculation is not None:
        reasons += run.speculation.reasons
    if run.dispatch is not None:
        reasons += run.dispatch.reasons
    if why:
        reasons.append(why)
    if run.marked:
        reasons.append("the prefix is marked for caching")
    if run.observing and offer is not None:
        reasons.append(f"only observed: sent to {offer.model[:60]}")
    return tuple(reasons)


def _took(run: CallRun) -> float:
    """Seconds that a call has taken until now, without those for which it was held back."""
    paced = run.dispatch.paced if run.dispatch is not None else 0.0
    return run.router.timing.perf() - run.started - paced


def close(run: CallRun, outcome: str, error: str = "", why: str = "") -> None:
    """Record, count and trace a call that is over."""
    own, beside = run.own, run.speculation
    if beside is not None and beside.later(partial(_late, run, outcome, error, why)):
        # What was sent in vain is read to its end by a thread: the app does not wait for what that cost.
        run.took = _took(run)
        record(run, decision_of(run, settled=False, why=why))
        return
    decision = decision_of(run, settled=True, why=why)
    if own is not None:
        own.cost += decision.cost
        run.router.tally.asked(decision.cost, own.route, own.tenant, own.purpose)
    else:
        run.binding.charge(decision.cost)
        record(run, decision)
        if run.router.decision_log is not None:
            _log(run, run.router.decision_log, decision, outcome)
        if outcome != "refused" or decision.attempts:
            _count(run, decision, failed=bool(error))
        if (meter := run.router.meter) is not None:
            held = run.dispatch.admitted if run.dispatch is not None else None
            meter.ended(
                decision,
                outcome,
                sent=outcome != "refused" or bool(decision.attempts),
                failed=bool(error),
                downgraded=held is not None and held.skipped > 0,
                tools=_tools(run),
            )
    if beside is not None:
        beside.count()
    run.trace.end(decision, outcome, error)
    dispatch = run.dispatch
    answer = dispatch.pending if dispatch is not None else None
    began = answer.began_at if answer is not None and isinstance(answer.reader, StreamReader) else None
    first_chunk = None if began is None else began - run.started
    if run.trace.chat is not None:
        run.trace.chat.end(decision.model, run.metered, first_chunk=first_chunk, output=run.output, error=error)
    run.router.metrics.ended(
        decision,
        outcome,
        error,
        asked=run.call.model,
        mode="observe" if run.observing else "enforce",
        purpose="answer" if own is None else own.purpose,
        first_chunk=first_chunk,
        held=dispatch.admitted if dispatch is not None else None,
        left=LEFT,
    )
    if run.shadow is not None:
        run.shadow.ended(decision, outcome, run.trace)


def record(run: CallRun, decision: Decision) -> None:
    """Show the app a decision of its own call."""
    if run.own is None:
        run.binding.record(decision)


def fit_of(run: CallRun) -> Fit | None:
    """What budgets would have made of the plan: from the balances as they were when the call was admitted."""
    held = run.dispatch.admitted if run.dispatch is not None else None
    if run.plan is None or held is None:
        return None
    # Under the limits that held: an operator's stands over the app's. Whether they are hard the app alone has said.
    lines = [line.limited(under.limit) for line, (under, _) in zip(run.lines, held.lines, strict=True)]
    return first_fit(run.plan.offers, lines, held.used, thresholds=run.plan.thresholds)


def _late(run: CallRun, outcome: str, error: str, why: str) -> None:
    """What was sent in vain has ended, after the call."""
    close(run, outcome, error, why)
    if run.anonymous or run.binding.over:
        run.router.books.background.start(run.router.forget(run.binding))


def _count(run: CallRun, decision: Decision, *, failed: bool) -> None:
    router, held = run.router, run.dispatch.admitted if run.dispatch is not None else None
    router.tally.ended(decision, {} if failed else run.costs, failed=failed)
    if run.marked and decision.usage.cache_read + decision.usage.cache_write_5m:
        router.tally.cached(gain(decision.model, decision.usage, router.prices, _USUAL))
    if held is not None and held.skipped:
        router.tally.downgraded(Downgrade(router.timing.now(), decision.requested_tier, held.offer.tier, held.share))


def _log(run: CallRun, written: DecisionLog, decision: Decision, outcome: str) -> None:
    written.write(
        decision,
        at=run.router.timing.now(),
        outcome=outcome,
        tools=_tools(run),
        text=turn_of(run.call)[0] if written.text else None,
    )


def _tools(run: CallRun) -> int:
    tools = run.call.body.get("tools")
    return len(tools) if isinstance(tools, list) else 0


def _all_on(run: CallRun, usage: Usage) -> dict[str, int]:
    """What a usage would have cost on each tier, at standard prices."""
    tiers = run.router.ladder.tiers
    costs = run.router.prices.costs([tier.model for tier in tiers], usage, _USUAL)
    return {tier.name: cost for tier, cost in zip(tiers, costs, strict=True) if cost is not None}


def _observed(run: CallRun, paid: int, spent: int, *, known: bool) -> Observed | None:
    """What enforcing would have made of this call."""
    fit = fit_of(run)
    if run.observed is not None or run.plan is None or fit is None:
        return run.observed
    offers = run.plan.offers
    if fit.skipped == len(offers):
        return Observed(None, offers[-1].unbounded or f"budget {fit.tight} has no room")
    tier = offers[fit.skipped].tier
    if not known or tier not in run.costs:
        return Observed(tier, downgraded=fit.skipped > 0)
    # An id on no rung is sent as it is, whatever rung it is ranked with.
    cost = (run.costs[tier] if run.router.ladder.rung_of(offers[fit.skipped].model) is not None else paid) + spent
    return Observed(tier, "", fit.skipped > 0, cost, paid - cost)
