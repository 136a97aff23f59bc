"""What proposals can do about sales."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings

from apps.core.actions import Payload, action
from apps.core.errors import BadInput
from apps.listings import access
from apps.listings.models import Listing
from apps.listings.services import status_of
from apps.protocol.credentials import Access, access_of
from apps.protocol.plans import check_answerable, plans_of
from apps.protocol.portion import portion_rows
from apps.subdaos.models import Dao
from apps.subdaos.selectors import on_sale, portion_bps
from apps.subdaos.services import param_set


@action("listings.set_access", house="sbgt")
class SetAccess:
    """{"access": {"credential": "accredited-hospital", "issuers": [pid, …]}}: from then on only
    holders of such a credential, from one of these, may ask the model or begin a plan. {"access":
    {}}: everybody may. What is held by then is answered, and a plan that runs keeps the terms that
    it began with until its end: who wants it over sooner retires the model first, which pays back.
    The nodes ask for it from the next round's model on (`training.access`).
    """

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"access"}:
            raise BadInput("bad_payload", "Give access, an object, and nothing else.")
        try:
            wanted = access_of(payload["access"])
        except ValueError as error:
            raise BadInput("bad_access", f"{error}".capitalize() + ".") from None
        if wanted == access.access_of(dao):
            raise BadInput("no_change", "So it is already.")
        access.ensure_keyed(wanted)
        return {"access": wanted.params if wanted else {}}

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        after = access_of(payload["access"])
        return [
            {
                "label": "May ask the model",
                "before": _who(access.access_of(dao)),
                "after": _who(after),
            }
        ]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        access.ensure_keyed(access_of(payload["access"]))  # one may have been revoked since
        param_set(dao=dao, key="access", value=payload["access"], proposal_id=proposal_id, now=now)


@action("listings.set_portion", house="sdt")
class SetPortion:
    """{"portion_bps": 5000}: of the rows that nodes answer of the model in a day one buyer may ask
    this part, from then on; 10000: all of them. The plans on offer must fit into it; one that runs
    keeps the part that it began with until its end.
    """

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"portion_bps"}:
            raise BadInput("bad_payload", "Give portion_bps and nothing else.")
        try:
            check_answerable(
                plans_of(dao.params["plans"]),
                rows_per_epoch=portion_rows(settings.ROWS_PER_EPOCH, payload["portion_bps"]),
                epoch_days=settings.ROWS_EPOCH_DAYS,
            )
        except ValueError as error:
            raise BadInput("bad_portion", f"portion_bps: {error}.") from None
        if payload["portion_bps"] == portion_bps(dao):
            raise BadInput("no_change", "So it is already.")
        return dict(payload)

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        before, after = portion_bps(dao), payload["portion_bps"]
        label = "Of the model's rows of a day, one buyer may ask"
        return [{"label": label, "before": _percent(before), "after": _percent(after)}]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        value = payload["portion_bps"]
        param_set(dao=dao, key="portion_bps", value=value, proposal_id=proposal_id, now=now)


def _percent(bps: int) -> str:
    return f"{bps // 100}.{bps % 100:02} %"


def _who(terms: Access | None) -> str:
    if terms is None:
        return "everybody"
    names = ", ".join(one["name"] for one in access.issuers_of(terms))
    return f"holders of a credential “{terms.credential}” from {names}"


@action("listings.set_on_sale", house="sdt")
class SetOnSale:
    """{"on_sale": false}: the SubDAO's model is retired; nobody is sold an answer from then on, by
    no version, until {"on_sale": true} is voted. What is held by then is answered and paid. A plan
    that runs ends by itself, once nothing under it is held: its buyer is told, and gets back what
    was paid for the time to come, as far as it is unused (`listings.plans`).
    """

    def validate(self, payload: Payload, dao: Dao) -> Payload:
        if set(payload) != {"on_sale"} or not isinstance(payload["on_sale"], bool):
            raise BadInput("bad_payload", "Give on_sale, true or false, and nothing else.")
        if payload["on_sale"] == on_sale(dao):
            raise BadInput("no_change", "So it is already.")
        return dict(payload)

    def describe(self, payload: Payload, dao: Dao) -> list[dict[str, Any]]:
        words = {True: "yes", False: "no"}
        before, after = on_sale(dao), payload["on_sale"]
        return [{"label": "Answers are sold", "before": words[before], "after": words[after]}]

    def execute(self, payload: Payload, *, dao: Dao, proposal_id: UUID, now: datetime) -> None:
        param_set(
            dao=dao, key="on_sale", value=payload["on_sale"], proposal_id=proposal_id, now=now
        )
        retired_at = None if payload["on_sale"] else now
        Listing.objects.filter(dao=dao).update(status=status_of(dao), retired_at=retired_at)
