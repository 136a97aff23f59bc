"""Calls, applications and the whitelist."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from apps.accounts.models import Party
from apps.core.errors import BadInput, Conflict
from apps.core.events import emit
from apps.core.live import changed
from apps.core.permissions import Denied, ensure
from apps.core.transactions import durable, require_transaction
from apps.governance.models import Proposal
from apps.governance.services import propose_by_system
from apps.participants import attestations, selectors
from apps.participants.events import ApplicationVerified, WhitelistExecuted
from apps.participants.models import Application, Call, Role
from apps.protocol import wire
from apps.subdaos.models import Dao
from apps.subdaos.services import dao_lock
from apps.wallets import log

WHITELIST = "participants.whitelist"
REMOVE = "participants.remove"
LIST_MAX = 500  # applications that one proposal may name


def call_open(*, slug: str, schema: Mapping[str, Any], rows_min: int, now: datetime) -> Call:
    """Inner writer: applications are taken from now on."""
    require_transaction("participants.call_open")
    return Call.objects.create(
        slug=slug,
        schema=dict(schema),
        schema_hash=attestations.schema_hash(schema),
        rows_min=rows_min,
        opened_at=now,
        created_at=now,
    )


def call_bind(*, call: Call, dao: Dao) -> None:
    """Inner writer: the SubDAO is founded; its members decide on the applications."""
    require_transaction("participants.call_bind")
    Call.objects.filter(id=call.id, dao=None).update(dao=dao)
    call.dao = dao


def call_close(*, call: Call, now: datetime) -> None:
    """Inner writer: no SubDAO will come; nothing more is taken."""
    require_transaction("participants.call_close")
    Call.objects.filter(id=call.id, closed_at=None).update(closed_at=now)
    call.closed_at = now


def can_apply(actor: Party | None, call: Call | None) -> Denied | None:
    """Anyone with a signing key may apply once to an open call."""
    if actor is None:
        return Denied("sign_in", "Sign in to offer data or validation.")
    if call is None or call.closed_at is not None:
        return Denied("call_closed", "Applications are taken once the RFM is approved.")
    if actor.kind not in (Party.Kind.PERSON, Party.Kind.ORGANISATION):
        return Denied("not_a_member", "Only people and organisations take part.")
    if selectors.application_of(call, actor) is not None:
        return Denied("already_applied", "You have applied already.")
    if actor.signing_key is None:
        return Denied("no_signing_key", "Bind a signing key first: PUT /api/v1/me/signing-key/.")
    return None


def application_file(
    *,
    actor: Party,
    call: Call | None,
    role: str,
    attestation: object,
    signature: object,
    now: datetime,
) -> Application:
    """Check a signed attestation and file it as verified; filing the same again returns it.

    Raises Forbidden (can_apply), BadAttestation (which field does not hold), Conflict.
    """
    if role not in set(Role):
        raise BadInput("bad_role", "The role is “custodian” or “validator”.", field="role")
    if call is None:
        ensure(can_apply(actor, None))
    with durable():
        call = Call.objects.select_for_update(no_key=True).get(id=call.id)
        existing = selectors.application_of(call, actor)
        if existing is not None and (existing.attestation, existing.role) == (attestation, role):
            return existing
        ensure(can_apply(actor, call))
        public_key = actor.signing_key
        checked = attestations.check(
            attestation,
            signature,
            public_key=public_key,
            rfm=call.slug,
            pid=actor.pid,
            role=role,
            schema=call.schema,
            rows_min=call.rows_min,
        )
        try:
            with transaction.atomic():
                application = Application.objects.create(
                    call=call,
                    party=actor,
                    role=role,
                    public_key=public_key,
                    attestation=checked,
                    signature=signature,
                    filed_at=now,
                    verified_at=now,
                    created_at=now,
                )
        except IntegrityError:
            raise Conflict("key_used", "This key has signed another application.") from None
        log.append(
            "participants.application",
            {
                "id": str(application.id),
                "call": str(call.id),
                "party": actor.pid,
                "role": role,
                "key": public_key,
                "attestation": wire.digest(attestations.DOMAIN, checked),
            },
            now=now,
        )
        emit(ApplicationVerified(application_id=str(application.id), call_id=str(call.id)), now=now)
    return application


def whitelist_propose(*, dao_id: UUID | str, now: datetime) -> list[Proposal]:
    """The first votes of a new SubDAO: let in everybody whose application is verified. Once.

    One proposal for each LIST_MAX applications, as many as a proposal may name.
    """
    with durable():
        dao = Dao.objects.select_for_update(of=("self",)).select_related("party").get(id=dao_id)
        made = Proposal.objects.filter(kind=WHITELIST, ref__startswith=f"founding:{dao.id}:")
        if made:
            return sorted(made, key=lambda row: int(row.ref.rpartition(":")[2]))
        pending = list(selectors.verified(dao.call))
        parts = [pending[i : i + LIST_MAX] for i in range(0, len(pending), LIST_MAX)]
        return [
            propose_by_system(
                dao=dao,
                kind=WHITELIST,
                payload={"applications": [str(row.id) for row in part]},
                title=f"Admit the first {len(pending)} participants"
                + (f", part {n} of {len(parts)}" if len(parts) > 1 else ""),
                description="Their attestations were checked against the schema and are signed. "
                "Members decide whose data and judgement the model is made of.",
                ref=f"founding:{dao.id}:{n}",
                now=now,
            )
            for n, part in enumerate(parts, 1)
        ]


def whitelist(
    *, dao: Dao, application_ids: list[str], proposal_id: UUID, now: datetime
) -> list[Application]:
    """Inner writer: admit these applications. Raises Conflict unless each one still stands."""
    require_transaction("participants.whitelist")
    dao_lock(dao)  # a round reads its roster under it: the log has them in the order they happened
    rows = _locked(dao, application_ids)
    if len(rows) != len(set(application_ids)) or any(row.rejected_at for row in rows):
        raise Conflict("application_gone", "An application of this list does not stand any more.")
    for row in rows:
        row.whitelisted_at, row.removed_at = row.whitelisted_at or now, None
    Application.objects.bulk_update(rows, ["whitelisted_at", "removed_at"])
    changed(f"subdao:{dao.id}")
    log.append(
        "participants.whitelisted",
        {
            "dao": dao.party.pid,
            "proposal": str(proposal_id),
            "applications": sorted(str(row.id) for row in rows),
        },
        now=now,
        ref=dao.id,
    )
    emit(WhitelistExecuted(dao_id=str(dao.id), proposal_id=str(proposal_id)), now=now)
    return rows


def remove(
    *, dao: Dao, application_ids: list[str], proposal_id: UUID, now: datetime
) -> list[Application]:
    """Inner writer: these members are on no later round's roster. Points and past pay are theirs.

    A round that is open keeps them, unless they are late: its tickets carry its roster. Raises
    Conflict unless each of them is a member.
    """
    require_transaction("participants.remove")
    dao_lock(dao)
    rows = _locked(dao, application_ids)
    members = [row for row in rows if row.status == Application.Status.WHITELISTED]
    if len(members) != len(set(application_ids)):
        raise Conflict("not_a_member", "Somebody on this list is not a member any more.")
    for row in rows:
        row.removed_at = now
    Application.objects.bulk_update(rows, ["removed_at"])
    changed(f"subdao:{dao.id}")
    log.append(
        "participants.removed",
        {
            "dao": dao.party.pid,
            "proposal": str(proposal_id),
            "applications": sorted(str(row.id) for row in rows),
        },
        now=now,
        ref=dao.id,
    )
    return rows


def _locked(dao: Dao, application_ids: list[str]) -> list[Application]:
    return list(
        Application.objects.select_for_update(of=("self",))
        .select_related("party", "call")
        .filter(id__in=application_ids, call__dao=dao)
        .order_by("id")
    )
