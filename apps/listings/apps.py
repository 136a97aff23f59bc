from django.apps import AppConfig


class ListingsConfig(AppConfig):
    name = "apps.listings"
    label = "listings"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from apps.listings import actions  # noqa: F401 - registers the kinds of proposals
        from apps.listings.access import kinds_asked_of, plans_before
        from apps.listings.invariants import LISTINGS_INVARIANTS
        from apps.training.access import sold_before
        from apps.wallets.credentials import asked_of
        from apps.wallets.invariants import INVARIANTS

        if kinds_asked_of not in asked_of:
            asked_of.append(kinds_asked_of)
        if plans_before not in sold_before:
            sold_before.append(plans_before)
        INVARIANTS.extend(i for i in LISTINGS_INVARIANTS if i not in INVARIANTS)
