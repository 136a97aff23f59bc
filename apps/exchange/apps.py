from __future__ import annotations

from django.apps import AppConfig


class ExchangeConfig(AppConfig):
    name = "apps.exchange"
    label = "exchange"

    def ready(self) -> None:
        from apps.exchange import actions  # noqa: F401 - registers the kinds of proposals
        from apps.exchange.invariants import EXCHANGE_INVARIANTS
        from apps.wallets.invariants import INVARIANTS

        INVARIANTS.extend(i for i in EXCHANGE_INVARIANTS if i not in INVARIANTS)
