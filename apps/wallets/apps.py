from django.apps import AppConfig
from django.db.models.signals import post_migrate


class WalletsConfig(AppConfig):
    name = "apps.wallets"
    label = "wallets"

    def ready(self) -> None:
        from apps.wallets.bootstrap import make_base_assets

        post_migrate.connect(make_base_assets, sender=self)
