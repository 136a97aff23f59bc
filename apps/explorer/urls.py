"""The pages' addresses, namespace "explorer"."""

from __future__ import annotations

from django.urls import path

from apps.explorer import (
    dashboard,
    design,
    governance,
    home,
    listings,
    log,
    nodes,
    people,
    rfms,
    rounds,
    search,
    subdaos,
    wallet,
)

app_name = "explorer"

urlpatterns = [
    path("", home.home, name="home"),
    path("dashboard/", dashboard.dashboard, name="dashboard"),
    path("search/", search.search, name="search"),
    path("sign-up/", people.sign_up, name="sign-up"),
    path("sign-in/", people.SignIn.as_view(), name="sign-in"),
    path("sign-out/", people.SignOut.as_view(), name="sign-out"),
    path("account/", people.account, name="account"),
    path("account/keys/<uuid:key_id>/revoke/", people.key_revoke, name="key-revoke"),
    path("models/", listings.models, name="models"),
    path("models/<slug:slug>/", listings.model, name="model"),
    path("queries/<uuid:query_id>/", listings.query, name="query"),
    path("rfms/", rfms.rfms, name="rfms"),
    path("rfms/new/", rfms.rfm_new, name="rfm-new"),
    path("rfms/<slug:slug>/", rfms.rfm, name="rfm"),
    path("rfms/<slug:slug>/submit/", rfms.rfm_submit, name="rfm-submit"),
    path("rfms/<slug:slug>/pledge/", rfms.pledge, name="rfm-pledge"),
    path("rfms/<slug:slug>/withdraw/", rfms.withdraw, name="rfm-withdraw"),
    path("subdaos/", subdaos.subdaos, name="subdaos"),
    path("subdaos/<slug:slug>/", subdaos.subdao, name="subdao"),
    path("rounds/<uuid:round_id>/", rounds.round_page, name="round"),
    path("proposals/", governance.proposals, name="proposals"),
    path("proposals/<uuid:proposal_id>/", governance.proposal, name="proposal"),
    path("proposals/<uuid:proposal_id>/vote/", governance.vote, name="proposal-vote"),
    path("proposals/<uuid:proposal_id>/execute/", governance.execute, name="proposal-execute"),
    path("wallet/", wallet.wallet, name="wallet"),
    path("wallet/key/", wallet.key, name="wallet-key"),
    path("wallet/send/", wallet.send, name="send"),
    path("wallet/stake/", wallet.stake, name="stake"),
    path("wallet/unstake/", wallet.unstake, name="unstake"),
    path("wallet/faucet/", wallet.faucet, name="faucet"),
    path("log/", log.entries, name="log"),
    path("log/<int:index>/", log.entry, name="log-entry"),
    path("nodes/", nodes.nodes, name="nodes"),
    path("nodes/health/", nodes.health, name="nodes-health"),
    path("jobs/<str:job_id>/", nodes.job, name="job"),
    path("design/", design.design, name="design"),
]
