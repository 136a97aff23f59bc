"""Forms are marked up as Django does it, whatever is in them."""

import re
from datetime import date

import pytest
from django import forms
from django.forms.renderers import DjangoTemplates, get_default_renderer

from apps.core.widgets import Renderer

NASTY = "\"><script>'&amp;"
COUNTRIES = [("", "—"), (NASTY, NASTY), ("Europe", [("nl", "Netherlands"), ("it", "Italy")])]
WIDGETS = [
    (forms.TextInput(), None),
    (forms.TextInput({"required": True, "disabled": False, "maxlength": 3}), NASTY),
    (forms.NumberInput({"min": 0, "step": "any"}), 0),
    (forms.HiddenInput(), ""),
    (forms.DateInput({"type": "date"}), date(2026, 2, 28)),
    (forms.EmailInput(), "a@b.example"),
    (forms.PasswordInput({"autocomplete": "new-password"}), "shown nowhere"),
    (forms.Select(choices=COUNTRIES), "it"),
    (forms.Select({"aria-label": NASTY}, choices=COUNTRIES), NASTY),
    (forms.SelectMultiple(choices=COUNTRIES), ["it", "nl"]),
    (forms.Select(choices=[]), None),
    (forms.Textarea({"rows": 2}), NASTY),
    (forms.CheckboxInput(), True),
]


def attributes(html):
    """The tags, each with its attributes in any order; space between tags is nothing."""
    tags = re.findall(r"<[^>]*>|[^<]+", re.sub(r">\s+<", "><", html.strip()))
    return [sorted(re.findall(r"[\w-]+(?:=\"[^\"]*\")?", tag)) for tag in tags]


@pytest.mark.parametrize(("widget", "value"), WIDGETS)
def test_a_widget_is_as_django_renders_it(widget, value):
    attrs = {"id": "id_x", "aria-describedby": "id_x-hint"}
    ours = widget.render("x", value, attrs=attrs, renderer=Renderer())
    theirs = widget.render("x", value, attrs=attrs, renderer=DjangoTemplates())
    assert attributes(ours) == attributes(theirs)
    assert "<script>" not in ours


def test_forms_use_it():
    assert isinstance(get_default_renderer(), Renderer)
