from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class SubdaosConfig(AppConfig):
    name = "apps.subdaos"
    label = "subdaos"
    verbose_name = "SubDAOs"

    def ready(self) -> None:
        from apps.subdaos import actions  # noqa: F401 - registers the kinds of proposals
        from apps.subdaos.bootstrap import make_superdao

        post_migrate.connect(make_superdao, sender=self)
