from __future__ import annotations

from django.apps import AppConfig


class ParticipantsConfig(AppConfig):
    name = "apps.participants"
    label = "participants"
    verbose_name = "Participants"

    def ready(self) -> None:
        from apps.participants import actions  # noqa: F401 - registers the kinds of proposals
