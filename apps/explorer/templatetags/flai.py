"""Template vocabulary: amounts, hashes, times, badges, bars; markup in templates/components.

The ones that a table has in every cell are format strings here: a page shows a hundred of them, and
a template each would cost more than all the rest of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache, wraps
from typing import Any

from django import template
from django.conf import settings
from django.forms import BoundField
from django.template import Context
from django.template.loader import get_template
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from apps.core import clock
from apps.explorer import charts, formatting, pictures
from apps.protocol.encoding import levels_of
from apps.protocol.evidence import METRIC_NAMES, interval_of, leading

register = template.Library()
Make = Callable[..., Mapping[str, object]]

TONES = {
    # requests
    "draft": "", "voting": "live", "rejected": "bad", "funding": "live", "awarded": "good",
    # proposals
    "pending": "wait", "active": "live", "canceled": "", "defeated": "bad", "succeeded": "good",
    "queued": "wait", "executed": "good", "expired": "",
    # rounds, jobs, queries, listings, applications
    "moments": "live", "normalising": "live", "updates": "live", "computing": "live",
    "running": "live", "committing": "live", "held": "wait", "settled": "good", "released": "",
    "done": "good", "void": "bad", "failed": "bad", "refused": "bad", "open": "good", "closed": "",
    "filed": "wait", "verified": "good", "whitelisted": "good", "proposed": "wait",
    "accepted": "good", "receiving": "wait", "received": "wait", "delivered": "good", "ok": "good",
    "late": "bad", "replaced": "", "withdrawing": "wait", "withdrawn": "", "in_force": "good",
    "unreachable": "bad", "revoked": "", "sbgt": "sbgt", "sdt": "sdt", "super": "super",
}  # fmt: skip
NAMES = {"sbgt": "SBGT house", "sdt": "SDT house", "super": "SuperDAO", "voting": "in vote"}

NOTHING = mark_safe('<span class="muted">—</span>')


def component(path: str, *, takes_context: bool = False) -> Callable[[Make], Make]:
    """A tag that renders a template with what the function gives it and nothing else.

    As `inclusion_tag`, which hands every one of a page's hundred small templates a copy of the
    request's context, made anew: that costs more than they do.
    """

    def registered(make: Make) -> Make:
        @register.simple_tag(name=make.__name__, takes_context=takes_context)
        @wraps(make)
        def tag(*args: object, **named: object) -> str:
            return get_template(path).template.render(Context(make(*args, **named)))

        return make

    return registered


@register.simple_tag
def badge(state: object, text: str = "") -> SafeString:
    """A state as a word with a tone; states that are not known stay grey, never vanish."""
    name = str(getattr(state, "value", state) or "")
    shown = text or NAMES.get(name) or name.replace("_", " ")
    return format_html('<span class="badge {}">{}</span>', TONES.get(name, ""), shown)


@register.simple_tag
def amount(
    micro: object, asset: str = "USDC", signed: bool = False, full: bool | int = False
) -> SafeString:
    """An amount with its unit; the exact value of the ledger is its title.

    `full` shows every micro-unit, where amounts stand beside the sum that they make; as a number,
    so many decimals at least, which aligns a column.
    """
    value = int(str(micro or 0))
    sign, prefix, number, unit = formatting.amount(value, asset)
    if full:
        least = (2 if prefix else 0) if full is True else full
        number = formatting.short(abs(value), decimals_min=least)
    unit = "SDT" if unit.startswith("SDT-") else unit
    return format_html(
        '<data class="amount {}" value="{exact}" title="{exact}">{}{}</data>',
        ("plus" if value > 0 else "minus") if signed else "",
        f"{'+' if signed and value > 0 else sign}{prefix}{number}",
        format_html(' <span class="unit">{}</span>', unit) if unit else "",
        exact=f"{formatting.exact(value)} {asset}",
    )


@register.simple_tag
def hash(value: object, name: str = "value") -> SafeString:
    """A hash or key: identicon, first six and last four, a copy button for the whole."""
    text = "" if value is None else str(value)
    if not text:
        return NOTHING
    return format_html(
        '<span class="hash">{ident}<code title="{text}">{short}</code><button type="button"'
        ' class="copy" data-text="{text}" aria-label="Copy {name} {short}">{icon}</button></span>',
        ident=identicon(text),
        text=text,
        short=formatting.short_hash(text),
        name=name,
        icon=_copy_icon(),
    )


@lru_cache(maxsize=1)
def _copy_icon() -> SafeString:
    return mark_safe(get_template("components/icon_copy.html").render())


@register.simple_tag
@lru_cache(maxsize=4096)
def identicon(value: object) -> SafeString:
    hue, path = formatting.identicon(str(value))
    return format_html(
        '<svg class="ident" viewBox="-0.5 -0.5 6 6" aria-hidden="true" fill="hsl({} 42% 50%)">'
        '<path d="{}"/></svg>',
        hue,
        path,
    )


@register.simple_tag
def when(at: datetime | str | int | None) -> SafeString:
    """A time relative to now, exact on hover: a datetime, ISO string, unix seconds or ms."""
    moment = as_datetime(at)
    if moment is None:
        return NOTHING
    return format_html(
        '<time datetime="{}" title="{}" data-relative>{}</time>',
        moment.isoformat(timespec="seconds"),
        moment.strftime("%-d %B %Y, %H:%M:%S UTC"),
        formatting.relative(moment, clock.now()),
    )


def as_datetime(at: datetime | str | int | None) -> datetime | None:
    if isinstance(at, str):
        return parse_datetime(at)
    if isinstance(at, int):
        return datetime.fromtimestamp(at / 1000 if at > 10**11 else at, tz=UTC)
    return at


@component("components/bar.html")
def bar(
    part: object, whole: object, label: str = "", tone: str = "", mark: object = None,
    size: str = "", ends: Sequence[int] | None = None,
) -> dict[str, object]:  # fmt: skip
    """part/whole as a bar in per mille of its width, with an optional mark and an interval (same
    unit as whole)."""
    total = max(int(str(whole or 0)), 1)

    def place(value: object) -> str:
        return _percent(min(max(int(str(value or 0)) * 1000 // total, 0), 1000))

    return {
        "width": place(part),
        "label": label,
        "tone": tone,
        "mark": None if mark is None else place(mark),
        "size": size,
        "ends": [place(end) for end in ends] if ends else None,
    }


def _percent(permille: int) -> str:
    return f"{permille // 10}.{permille % 10}%"


@component("components/stat.html")
def stat(label: str, value: object, note: str = "") -> dict[str, object]:
    return {"label": label, "value": value, "note": note}


@component("components/field.html")
def field(bound: BoundField, unit: str = "") -> dict[str, object]:
    """One field of a form: label, hint, control, error, wired for screen readers."""
    described = [f"{bound.id_for_label}-hint"] if bound.help_text else []
    attributes: dict[str, Any] = {}
    if bound.errors:
        described.insert(0, f"{bound.id_for_label}-error")
        attributes["aria-invalid"] = "true"
    if described:
        attributes["aria-describedby"] = " ".join(described)
    kind = getattr(bound.field.widget, "input_type", "")
    return {
        "field": bound,
        "control": bound.as_widget(attrs=attributes),
        "check": kind == "checkbox",
        "unit": unit,
    }


@component("components/term.html")
def term(word: str, text: str) -> dict[str, object]:
    """A word of the paper with its one-sentence meaning behind a dotted underline."""
    slug = "".join(c if c.isalnum() else "-" for c in word.lower())
    return {"word": word, "text": text, "id": f"term-{slug}-{len(text)}"}


@component("components/confirm.html", takes_context=True)
def confirm(context: Mapping[str, Any], preview: Mapping[str, Any]) -> dict[str, object]:
    """What will happen, before it does: facts, one button that says it, and a way back.

    preview: action, back (addresses), submit (the button's words), rows (label, value), hidden
    (name, value) and, where something is not as asked, warning; where a key must sign it, sign
    (data attributes that static/js/signing.js reads).
    """
    return {"csrf_token": context.get("csrf_token"), **preview}


@component("components/crumbs.html")
def crumbs(*pairs: object) -> dict[str, object]:
    """`{% crumbs "/models/" "Models" %}`: Home, then url and name in turn; the page itself is its
    heading. Every page but home has them."""
    return {
        "steps": [(reverse("explorer:home"), "Home"), *zip(pairs[::2], pairs[1::2], strict=True)]
    }


@component("components/chart_flow.html")
def flow_chart(flow: charts.Flow, caption: str) -> dict[str, object]:
    """Where an amount goes. The caption says what the chart shows; so in all of these."""
    return {"flow": flow, "caption": caption}


@component("components/chart_line.html")
def line_chart(line: pictures.Timeline, caption: str) -> dict[str, object]:
    """A quantity over time, with its goal if it has one."""
    return {"line": line, "caption": caption}


@component("components/chart_released.html")
def released_chart(chart: pictures.Released, caption: str) -> dict[str, object]:
    """What a reserve has released and will release."""
    return {"chart": chart, "caption": caption}


@component("components/chart_phi.html")
def phi_chart(
    by_round: tuple[list[int], list[pictures.PhiRow]], caption: str, of: str = "Site"
) -> dict[str, object]:
    """φ of each site (or what else is `of` each), a bar a round."""
    numbers, rows = by_round
    return {"numbers": numbers, "rows": rows, "caption": caption, "of": of}


@component("components/chart_trace.html")
def trace_chart(traced: pictures.Traced, caption: str) -> dict[str, object]:
    """A figure over rounds or epochs, with intervals and a gate where there are such."""
    return {"traced": traced, "caption": caption}


@component("components/chart_stacks.html")
def stacks_chart(rows: list[pictures.StackRow], caption: str) -> dict[str, object]:
    """Counts by kind, a bar for each thing that has them."""
    key = [segment.part for segment in rows[0].segments] if rows else []
    return {"rows": rows, "key": key, "caption": caption}


@register.simple_tag
@cache
def sees(name: str) -> str:
    """Who can see what of the thing on the page; it never changes, so it is rendered once."""
    return get_template("components/sees.html").template.render(Context(pictures.sees(name)))


@register.filter
def permille(value: int) -> str:
    """Thousandths of the width, as an SVG length: 125 → "12.5%"."""
    return _percent(value)


@register.simple_tag
@lru_cache(maxsize=32)
def main_nav(section: str) -> SafeString:
    """The main navigation, with the section that the page is in."""
    return mark_safe(get_template("components/nav.html").render({"section": section}))


@component("components/pager.html", takes_context=True)
def pager(context: Mapping[str, Any], page: Any) -> dict[str, object]:
    """Older/newer links that keep the other parameters of the address."""
    query = context["request"].GET.copy()
    for name in ("page", "after", "before"):
        query.pop(name, None)
    return {"page": page, "rest": query.urlencode()}


@register.simple_tag(takes_context=True)
def my_party(context: Mapping[str, Any]) -> Any:
    """The party that this session acts for, or None; one query a request."""
    from apps.explorer.page import party_of

    request = context.get("request")
    return party_of(request) if request is not None else None


@register.simple_tag
def faucet_on() -> bool:
    return bool(settings.FAUCET)


@register.filter
def exact(micro: object) -> str:
    return formatting.exact(int(str(micro or 0)))


@register.filter
def grouped(count: object) -> str:
    """`10000` -> "10,000"."""
    return f"{int(str(count or 0)):,}"


@register.filter
def bps(value: object) -> str:
    return formatting.bps(int(str(value or 0)))


@register.filter
def milli(value: object) -> str:
    return formatting.milli(None if value is None or value == "" else int(str(value)))


@register.filter
def times_as_likely(epsilon_milli: int) -> str:
    return formatting.times_as_likely(epsilon_milli)


@register.filter
def size(count: object) -> str:
    return formatting.size(int(str(count or 0)))


@register.filter
def share_of(part: object, whole: object) -> str:
    """`{{ part|share_of:whole }}` -> "12.4 %"."""
    return formatting.percent(int(str(part or 0)), int(str(whole or 0)))


@register.filter
def seconds(value: object) -> str:
    return formatting.duration(int(str(value or 0)))


@register.filter
def short_hash(value: object) -> str:
    return formatting.short_hash("" if value is None else str(value))


@register.filter
def pretty_json(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str)


_IDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{32}(?:[0-9a-f]{32})?\b")


@register.filter
def with_places(text: str) -> str:
    """A text whose ids, pseudonyms and hashes lead to what the search finds under them."""
    parts, at = [], 0
    for found in _IDS.finditer(text):
        url = f"{reverse('explorer:search')}?q={found[0]}"
        parts.append(format_html('{}<a href="{}">{}</a>', text[at : found.start()], url, found[0]))
        at = found.end()
    return format_html_join("", "{}", ((part,) for part in (*parts, text[at:])))


@register.filter
def words(value: object) -> str:
    """`federated_learning` -> "federated learning"."""
    return str(value or "").replace("_", " ")


@register.filter
def codes(text: str) -> str:
    """What stands between backticks as code; everything is escaped."""
    parts = [("<code>{}</code>" if i % 2 else "{}", p) for i, p in enumerate(text.split("`"))]
    return mark_safe("".join(format_html(form, part) for form, part in parts))


@register.filter
def breakable(name: object) -> str:
    """`mean_fractal_dimension`, which a narrow column may break after an underscore."""
    return format_html_join(mark_safe("_<wbr>"), "{}", ((part,) for part in str(name).split("_")))


@register.filter
def key(mapping: Any, name: object) -> Any:
    """`{{ mapping|key:name }}`: a member by a name that is itself a variable; None when absent."""
    return mapping.get(name) if isinstance(mapping, Mapping) else getattr(mapping, str(name), None)


@component("components/bar.html")
def gate_bar(evidence: Mapping[str, Any], metric: str, stratum: str | None) -> dict[str, object]:
    """A metric of the evidence as a bar from 0 to 1, red below its gate, the gate as a line."""
    by_stratum = evidence.get(f"{metric}_by_stratum") or {}
    value = evidence.get(f"{metric}_milli") if stratum is None else by_stratum.get(stratum)
    gates = [g for g in evidence.get("gates") or [] if g["metric"] == metric]
    gate = next((g for g in gates if g.get("stratum") == stratum), None)
    missed = gate is not None and not gate["met"]
    words = f"{METRIC_NAMES[metric]} {'hidden' if value is None else formatting.milli(value)}"
    if gate:
        words += f", gate {formatting.milli(gate['min_milli'])}"
    ends = interval_of(evidence, metric, stratum)
    if ends:
        words += f", in 95 of 100 cases {formatting.between(ends)}"
    least = gate and gate["min_milli"]
    return bar(value or 0, 1000, words, "bad" if missed else "", least, "tall", ends)


@register.filter
def more_metrics(evidence: Mapping[str, Any]) -> list[tuple[str, int | None, list[int] | None]]:
    """(name, value, interval) over all rows of the metrics without a gate; the charted one too."""
    asked = {gate["metric"] for gate in evidence.get("gates") or []}
    return [
        (title, evidence[f"{name}_milli"], interval_of(evidence, name, None))
        for name, title in METRIC_NAMES.items()
        if f"{name}_milli" in evidence and name not in asked
    ]


@register.filter
def roles(held: Any) -> str:
    """Who takes part in a round: `6 sites, 2 validators`."""
    listed = [member["role"] for member in held.roster["members"]]
    sites, validators = listed.count("custodian"), listed.count("validator")
    return f"{sites} site{'s' * (sites != 1)}, {validators} validator{'s' * (validators != 1)}"


@register.filter
def lead(evidence: Mapping[str, Any]) -> str:
    """`auc`, or what stands for it in other model classes."""
    return leading(evidence)


@register.filter
def gate_interval(evidence: Mapping[str, Any], gate: Mapping[str, Any]) -> list[int] | None:
    """The interval of what a gate asks for."""
    return interval_of(evidence, gate["metric"], gate.get("stratum"))


@register.filter
def between(ends: Sequence[int] | None) -> str:
    return formatting.between(ends) if ends else "—"


@register.filter
def overall(evidence: Mapping[str, Any]) -> int | None:
    """The leading metric over all rows."""
    value: int | None = evidence.get(f"{leading(evidence)}_milli")
    return value


@register.filter
def metric_name(metric: str) -> str:
    return METRIC_NAMES.get(metric, metric)


@register.filter
def levels(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a category or boolean; none of a number."""
    return levels_of(feature)


@register.filter
def predicts(label: Mapping[str, Any]) -> str:
    """What a model says of its label, as the end of a sentence."""
    name = label["name"]
    if "classes" in label:
        return f"which {name} it is ({', '.join(label['classes'])})"
    if "positive" in label:
        return f"whether {name} is {label['positive']}"
    if "series" in label:
        return f"the next {name} of a series, as a number from {label['min']} to {label['max']}"
    if "event" in label:
        return f"how soon {label['event']} is {label['occurred']}, against a row of mean features"
    return f"{name} as a number from {label['min']} to {label['max']}"


@register.filter
def calibration_rows(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fifths of the probability: what was said, how many rows, what happened, in thousandths."""
    rows = []
    for at, fifth in enumerate(evidence.get("calibration") or []):
        row: dict[str, Any] = {"said": f"{20 * at}–{20 * at + 20} %"}
        if fifth:
            count, ups, mean = fifth
            row |= {"rows": count, "mean": mean, "happened": (2000 * ups + count) // (2 * count)}
        rows.append(row)
    return rows


@register.filter
def why_none(evidence: Mapping[str, Any], stratum: str) -> str:
    """Why a stratum has no leading metric: where its rows are told, they do not differ enough."""
    told = ((evidence.get("support") or {}).get("by_stratum") or {}).get(stratum)
    return "too even" if told and leading(evidence) == "r2" else "hidden"


@register.filter
def strata_rows(evidence: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    """Its leading metric by stratum in the order of the gates (JSON keeps none), else by name."""
    values = evidence.get(f"{leading(evidence)}_by_stratum") or {}
    asked = [g["stratum"] for g in evidence.get("gates") or [] if g.get("stratum") in values]
    order = list(dict.fromkeys([*asked, *sorted(values)]))
    return [(name, values[name]) for name in order]
