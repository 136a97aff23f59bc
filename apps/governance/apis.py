"""/api/v1/proposals."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.accounts.permissions import acting_party, acting_party_or_none
from apps.core import clock
from apps.core.errors import BadInput
from apps.core.idempotency import idempotent
from apps.core.pagination import paged
from apps.core.serial import checked
from apps.governance import executing, selectors, services
from apps.protocol.tally import State
from apps.subdaos.selectors import dao_by_slug
from apps.wallets.consenting import ConsentSerializer, consent_of

PROPOSAL = OpenApiResponse(
    OpenApiTypes.OBJECT,
    description="{id, dao, house, kind, title, description, payload, payload_hash, "
    "changes: [{label, before, after}], state, voting_starts_at, voting_ends_at, quorum_bps, "
    "threshold_bps, tally: {for, against, abstain, total, quorum_reached}, "
    "my: {weight, why, vote}, votes: [{voter, support, weight, at}] (the first 100), executed_at, "
    "execution_error, …}",
)
LIST = OpenApiResponse(OpenApiTypes.OBJECT, description="{results: […], next: url | null}")


class NewProposalSerializer(ConsentSerializer):
    dao = serializers.CharField(max_length=60)
    kind = serializers.CharField(max_length=60)
    payload = serializers.DictField()
    title = serializers.CharField(max_length=services.TITLE_MAX)
    description = serializers.CharField(
        max_length=services.DESCRIPTION_MAX, default="", allow_blank=True
    )


class VoteSerializer(ConsentSerializer):
    support = serializers.ChoiceField(choices=["for", "against", "abstain"])


def _json(proposal_id: UUID, request: Request) -> dict[str, Any]:
    proposal = selectors.proposal_get(proposal_id)
    viewer = acting_party_or_none(request)
    return selectors.proposal_detail(proposal, now=clock.now(), viewer=viewer)


class ProposalsView(APIView):
    """Proposals, newest first; ?dao=slug, ?state=, ?kind=."""

    @extend_schema(
        operation_id="proposals_list",
        parameters=[
            OpenApiParameter("dao", str),
            OpenApiParameter("state", str, enum=[state.value for state in State]),
            OpenApiParameter("kind", str),
        ],
        responses={200: LIST},
    )
    def get(self, request: Request) -> Response:
        now, query = clock.now(), request.query_params
        state = query.get("state")
        if state and state not in set(State):
            raise BadInput("bad_state", f"The state is one of {', '.join(State)}.")
        rows = selectors.proposal_list(
            now=now,
            dao=dao_by_slug(query["dao"]) if query.get("dao") else None,
            state=state,
            kind=query.get("kind"),
        )
        return paged(request, rows, lambda row: selectors.proposal_summary(row, now))

    @extend_schema(request=NewProposalSerializer, responses={201: PROPOSAL})
    @idempotent(required=False)
    def post(self, request: Request) -> Response:
        data = checked(NewProposalSerializer, request)
        made = services.propose(
            actor=acting_party(request),
            dao=dao_by_slug(data.pop("dao")),
            consent=consent_of(request, data),
            now=clock.now(),
            **data,
        )
        return Response(_plain(_json(made.id, request)), status=201)


class ProposalView(APIView):
    """One proposal in full, with your weight and why it is what it is."""

    @extend_schema(responses={200: PROPOSAL})
    def get(self, request: Request, proposal_id: UUID) -> Response:
        return Response(_json(proposal_id, request))


class VotesView(APIView):
    """The votes in the order in which they were cast; POST votes, once."""

    @extend_schema(operation_id="proposals_votes_list", responses={200: LIST})
    def get(self, request: Request, proposal_id: UUID) -> Response:
        rows = selectors.votes(selectors.proposal_get(proposal_id))
        return paged(request, rows, selectors.vote_json, ordering=("at", "id"))

    @extend_schema(request=VoteSerializer, responses={201: PROPOSAL})
    def post(self, request: Request, proposal_id: UUID) -> Response:
        data = checked(VoteSerializer, request)
        services.vote(
            actor=acting_party(request),
            proposal_id=proposal_id,
            support=data["support"],
            consent=consent_of(request, data),
            now=clock.now(),
        )
        return Response(_json(proposal_id, request), status=201)


class ExecuteView(APIView):
    """Have a carried proposal executed now; the system does it by itself, too."""

    @extend_schema(request=None, responses={200: PROPOSAL})
    def post(self, request: Request, proposal_id: UUID) -> Response:
        executing.execute(proposal_id=proposal_id, actor=acting_party(request), now=clock.now())
        return Response(_json(proposal_id, request))


class CancelView(APIView):
    """Take one's own proposal back before voting begins."""

    @extend_schema(request=ConsentSerializer, responses={200: PROPOSAL})
    def post(self, request: Request, proposal_id: UUID) -> Response:
        data = checked(ConsentSerializer, request)
        services.cancel(
            actor=acting_party(request),
            proposal_id=proposal_id,
            consent=consent_of(request, data),
            now=clock.now(),
        )
        return Response(_json(proposal_id, request))


def _plain(content: dict[str, Any]) -> Any:
    """As stored for a retry: times as text."""
    return json.loads(JSONRenderer().render(content))


urlpatterns = [
    path("proposals/", ProposalsView.as_view(), name="proposals"),
    path("proposals/<uuid:proposal_id>/", ProposalView.as_view(), name="proposal"),
    path("proposals/<uuid:proposal_id>/votes/", VotesView.as_view(), name="proposal-votes"),
    path("proposals/<uuid:proposal_id>/execute/", ExecuteView.as_view(), name="proposal-execute"),
    path("proposals/<uuid:proposal_id>/cancel/", CancelView.as_view(), name="proposal-cancel"),
]
