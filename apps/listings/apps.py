from django.apps import AppConfig


class ListingsConfig(AppConfig):
    name = "apps.listings"
    label = "listings"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from apps.listings import actions  # noqa: F401 - registers the kinds of proposals
        from apps.listings.invariants import LISTINGS_INVARIANTS
        from apps.wallets.invariants import INVARIANTS

        INVARIANTS.extend(i for i in LISTINGS_INVARIANTS if i not in INVARIANTS)
