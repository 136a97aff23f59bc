"""How forms are rendered: as Django does, with <input> and <select> written out.

A page such as the wallet has twenty of them; a template for each, for each option, and for the
attributes of both, was an eighth of its time.
"""

from __future__ import annotations

from typing import Any

from django.forms.renderers import DjangoTemplates
from django.forms.utils import flatatt
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

_INPUTS = {
    f"django/forms/widgets/{kind}.html"
    for kind in ("input", "text", "number", "hidden", "date", "email", "password", "search")
}
_SELECT = "django/forms/widgets/select.html"


class Renderer(DjangoTemplates):
    """`<input>` and `<select>` without templates; everything else as Django has it."""

    def render(
        self, template_name: str, context: dict[str, Any], request: Any = None
    ) -> SafeString:
        if template_name in _INPUTS:
            return _input(context["widget"])
        if template_name == _SELECT:
            return _select(context["widget"])
        return super().render(template_name, context, request)


def _input(widget: dict[str, Any]) -> SafeString:
    value = "" if widget["value"] is None else format_html(' value="{}"', widget["value"])
    attributes = flatatt(widget["attrs"])
    return format_html(
        '<input type="{}" name="{}"{}{}>', widget["type"], widget["name"], value, attributes
    )


def _select(widget: dict[str, Any]) -> SafeString:
    inside = []
    for title, options, _ in widget["optgroups"]:
        group = format_html_join(
            "",
            '<option value="{}"{}>{}</option>',
            ((o["value"], flatatt(o["attrs"]), o["label"]) for o in options),
        )
        if title:
            group = format_html('<optgroup label="{}">{}</optgroup>', title, group)
        inside.append((group,))
    attributes = flatatt(widget["attrs"])
    options = format_html_join("", "{}", inside)
    return format_html('<select name="{}"{}>{}</select>', widget["name"], attributes, options)
