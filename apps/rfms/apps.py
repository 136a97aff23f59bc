from __future__ import annotations

from django.apps import AppConfig


class RfmsConfig(AppConfig):
    name = "apps.rfms"
    label = "rfms"
    verbose_name = "RFMs"

    def ready(self) -> None:
        from apps.rfms import actions  # noqa: F401 - registers the kinds of proposals
