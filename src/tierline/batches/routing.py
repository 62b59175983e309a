"""Where a request of a batch goes: the first three steps of a call, without a request that waits for its answer.

What needs an answer at once is no part of it: escalation, speculation, exploring, and conversations that stay warm.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.batches.booking import Said
from tierline.batches.values import MOST_BYTES, BatchRequest
from tierline.binding import Binding, Context, context
from tierline.call import AUTO, read_call, turn_of
from tierline.classify.worth import usual_usage
from tierline.consult import ask
from tierline.errors import ConfigurationError, TierlineError
from tierline.grounds import Grounds, Inquiry
from tierline.ledger.base import Origin
from tierline.ledger.checks import plain
from tierline.legality import fit
from tierline.plan import Plan, adapt, admit, plan, unenforced
from tierline.values import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.admission import Admission
    from tierline.budgets import Line
    from tierline.call import Call
    from tierline.plan import Request
    from tierline.policies import Effective, Policy
    from tierline.router import Router
    from tierline.values import Offer

_NOT_HERE: Final = ("stream", "speed")
"""Parameters that no batch takes."""
_SLACK: Final = 4096
"""Bytes that a batch has beside its requests, and that a request may have more on another tier."""


class Whose(NamedTuple):
    """Who pays for requests, and where they may go: what they have in common that are held for in one step."""

    lines: tuple[Line, ...]
    forget: tuple[Line, ...]
    """Those of `lines` that end with the request."""
    origin: Origin
    tiers: tuple[tuple[str, str, bool], ...]
    """Name, model and whether there is a bound, of each offer."""
    thresholds: bool


class Routed(NamedTuple):
    """A request that may be sent, and its offers with what each sends."""

    place: int
    name: str
    whose: Whose
    offers: tuple[Offer, ...]
    call: Call
    size: int = 0
    """Bytes of its line, whichever offer is taken: an upper bound."""
    usual: Usage = Usage()
    """Tokens that are expected of it."""
    said: str = ""
    """Why it goes where it goes: see `Said`. Empty where nobody writes that down."""

    def payload(self, uid: str, offer: Offer) -> str:
        """Its line of a batch, for the tier that was taken."""
        params = json.dumps(adapt(self.call, offer), separators=(",", ":"))
        return f'{{"custom_id":"{uid}-{self.place}","params":{params}}}'


class _Asker:
    """What questions are asked with."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def ask(self, body: dict[str, Any], timeout: float) -> Any:
        """Ask a question of Tierline's own."""
        return await ask(self.client.messages.create, body, timeout)


class Routing:
    """Routes the requests of one submission, as it would be done for a call from where that was begun.

    `silent` says why Claude is not asked for verdicts; empty where it may be.
    """

    def __init__(self, router: Router[Any], silent: str = "") -> None:
        self._router, self._silent = router, silent
        self._now = context()
        self._asker: _Asker | None = None

    async def route(self, given: Sequence[tuple[int, BatchRequest]]) -> list[Routed | str]:
        """Requests with their places; for each its offers, or what is wrong with it.

        Side by side, so that what Claude is asked about them is asked for many at a time. LedgerUnavailableError and
        errors of the program are raised.
        """
        return list(await asyncio.gather(*(self._one(place, request) for place, request in given)))

    async def _one(self, place: int, request: BatchRequest) -> Routed | str:
        try:
            return await self._routed(place, request)
        except (ConfigurationError, TierlineError) as error:
            if error.status == 503:  # noqa: PLR2004  (it is not the request's fault)
                raise
            return f"{type(error).__name__}: {error}"

    async def _routed(self, place: int, request: BatchRequest) -> Routed | str:
        router = self._router
        params = dict(request.params)
        for field in _NOT_HERE:
            if params.pop(field, None):
                return f"a batch takes no {field}: leave it out"
        call = read_call("create", params)
        if call is None:
            return "params are no Messages request: model and messages are missing, or are something else"
        call = call._replace(terms=call.terms._replace(batch=True))
        binding = self._binding(request)
        rules: tuple[Policy, ...] = (request.policy,) if request.policy is not None else ()
        now = Context(binding, (*self._now.blocks, *((rule, 0) for rule in rules)))
        if router.mode == "off":
            return self._sendable(place, request.custom_id, self._unrouted(call, now, binding), (), (), Origin())
        admission = router.rules.admission(now, binding)
        forget = tuple(line for line in admission.lines if line in binding.request_lines)
        origin = Origin(admission.tenant and plain(admission.tenant), admission.route)
        if router.mode == "observe":
            asked = unenforced(call, admission.policy, router.ladder, router.prices.list_output_price)
            found = self._planned(call, asked, Grounds())
            lines = tuple(line.softened for line in admission.lines)
            sendable = self._sendable(place, request.custom_id, (call, found), lines, forget, origin)
            return self._expected(sendable, found, admission.policy)
        asked = admit(call, admission.policy, router.ladder, router.prices.list_output_price)
        grounds = await self._grounds(call, asked, admission)
        found = self._planned(call, asked, grounds)
        sendable = self._sendable(place, request.custom_id, (call, found), admission.lines, forget, origin)
        return self._expected(sendable, found, admission.policy)

    def _binding(self, request: BatchRequest) -> Binding:
        """Each request is one of its own, for budgets too that are for each request."""
        outer = self._now.binding_of(self._router)
        tenant, route = request.tenant, request.route
        if outer is not None:
            tenant = outer.tenant if tenant is None else tenant
        binding = Binding(self._router, tenant=tenant, route=route, outer=outer)
        if request.accounts:
            binding.accounts = {**binding.accounts, **request.accounts}
        binding.prepare()
        return binding

    async def _grounds(self, call: Call, asked: Request, admission: Admission) -> Grounds:
        router = self._router
        if asked.target is not None:
            return Grounds()
        if self._asker is None:
            self._asker = _Asker(None if self._silent else router.claude)
        router.learning.begin()
        text, tools = turn_of(call)
        taught = router.learning.asked(admission.route, admission.tenant, text, tools)
        inquiry = Inquiry(router, call, self._asker, admission, taught)
        silent = self._silent or router.rejected.get(self._asker.client, "")
        found = await inquiry.grounds(asked.policy, None, silent)
        return found._replace(explore=False)

    def _planned(self, call: Call, asked: Request, grounds: Grounds) -> Plan:
        router = self._router
        return plan(
            call,
            asked,
            grounds.opinion,
            router.ladder,
            sure=router.min_confidence,
            fit=partial(fit, actions=router.legality, counted={}),
            worst=router.prices.offer,
            forecast=grounds.forecast,
            learn_after=router.learn_after,
            usual=grounds.usual,
        )

    def _unrouted(self, call: Call, now: Context, binding: Binding) -> tuple[Call, Plan]:
        """With mode off, nothing but a model for `auto`, the highest that may be used here; and no budget."""
        ladder = self._router.ladder
        place = ladder.rung_of(call.model)
        if place is None:
            place = ladder.top
        if call.model == AUTO:
            with suppress(TierlineError):
                place = self._router.rules.policy_of(now, binding).ceiling
        tier = ladder[place]
        offer = self._router.prices.offer(call, tier.model if call.model == AUTO else call.model, call.max_tokens)
        return call, Plan((offer._replace(tier=tier.name),), (), tier.name, False, "default", None, 0.0, ())

    def _sendable(
        self,
        place: int,
        name: str,
        planned: tuple[Call, Plan],
        lines: tuple[Line, ...],
        forget: tuple[Line, ...],
        origin: Origin,
    ) -> Routed | str:
        call, found = planned
        offers = found.offers
        tiers = tuple((offer.tier, offer.model, offer.cost is not None) for offer in offers)
        routed = Routed(place, name, Whose(lines, forget, origin, tiers, found.thresholds), offers, call)
        try:
            size = len(routed.payload("x" * 16, offers[0])) + _SLACK
        except (TypeError, ValueError, RecursionError) as error:
            return f"params are no JSON: {type(error).__name__}"
        if size > MOST_BYTES:
            return f"it has {size:,} bytes as JSON, and a batch takes {MOST_BYTES:,} in all"
        return routed._replace(size=size)

    def _expected(self, routed: Routed | str, found: Plan, policy: Effective) -> Routed | str:
        """A request with the tokens that are expected of it, and what the decision log is to say of it."""
        if isinstance(routed, str):
            return routed
        log = self._router.decision_log
        said = Said.of(routed.call, found, policy, text=log.text) if log is not None else ""
        return routed._replace(usual=usual_usage(routed.call, policy), said=said)
