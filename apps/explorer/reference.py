"""The API's reference, drawn from its own description, so that the two can't differ."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from drf_spectacular.generators import SchemaGenerator

from apps.explorer.page import party_of, show

Json = dict[str, Any]
PREFIX = "/api/v1"
METHODS = ("get", "post", "put", "patch", "delete")
SAMPLES: dict[str, Any] = {
    "uuid": "6f1c1c1e-8d0a-4a57-9f0e-0d4d7c0a4c11",
    "date-time": "2026-11-28T12:00:00Z",
    "date": "2026-11-28",
    "email": "you@example.org",
    "uri": "https://example.org/",
    "integer": 1,
    "number": 1.0,
    "boolean": True,
}
DEPTH_MAX = 6
NEW_KEY = "$(od -An -N16 -tx1 /dev/urandom | tr -d ' ')"  # uuidgen is not everywhere


@dataclass(frozen=True)
class Parameter:
    name: str
    place: str
    type: str
    text: str
    required: bool
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One operation as the page shows it; `body` and `answer` are examples as JSON text."""

    id: str
    method: str
    path: str
    title: str
    text: str
    parameters: tuple[Parameter, ...]
    responses: tuple[tuple[str, str], ...]
    public: bool
    body: str = ""
    answer: str = ""
    snippets: tuple[tuple[str, str], ...] = ()

    @property
    def reads(self) -> bool:
        return self.method == "GET"


def reference(request: HttpRequest, group: str = "") -> HttpResponse:
    """All operations by name; with a group, its operations in full."""
    groups = operations()
    if group and group not in groups:
        raise Http404
    return show(
        request,
        "reference.html",
        "",
        groups={name: found for name, found in groups.items() if group in ("", name)},
        names=list(groups),
        group=group,
        party=party_of(request),
        base=f"{settings.BASE_URL}{PREFIX}",
    )


@cache
def operations() -> dict[str, list[Operation]]:
    """{group: its operations}, once a process: the description does not change while it runs."""
    schema = SchemaGenerator().get_schema(request=None, public=True)
    groups: dict[str, list[Operation]] = {}
    for path, methods in schema["paths"].items():
        for method in METHODS:
            if method in methods:
                found = methods[method]
                group = groups.setdefault(found["tags"][0], [])
                group.append(_operation(schema, path, method, found))
    return dict(sorted(groups.items()))


def _operation(schema: Json, path: str, method: str, found: Json) -> Operation:
    title, _, text = found.get("description", "").partition("\n\n")
    parameters = tuple(_parameter(schema, p) for p in found.get("parameters", []))
    content = found.get("requestBody", {}).get("content", {}).get("application/json", {})
    done = next((r for code, r in found["responses"].items() if code < "3"), {})
    kinds = next(iter(done.get("content", {}).values()), {})
    body = _example(schema, content)
    short = path.removeprefix(PREFIX)
    return Operation(
        id=found["operationId"],
        method=method.upper(),
        path=short,
        title=" ".join(title.split()),
        text=text.strip(),
        parameters=tuple(sorted(parameters, key=lambda p: (not p.required, p.place))),
        responses=tuple(
            (code, answer.get("description") or ("Done" if code < "3" else ""))
            for code, answer in sorted(found["responses"].items())
        ),
        public={} in found.get("security", [{}]),
        body=_text(body),
        answer=_text(_example(schema, kinds)),
        snippets=_snippets(method.upper(), short, parameters, body),
    )


def _parameter(schema: Json, raw: Json) -> Parameter:
    kind = _resolved(schema, raw.get("schema", {}))
    items = _resolved(schema, kind.get("items", {}))
    return Parameter(
        name=raw["name"],
        place=raw["in"],
        type=_type(kind),
        text=raw.get("description", ""),
        required=raw.get("required", False),
        choices=tuple(map(str, kind.get("enum") or items.get("enum") or ())),
    )


def _type(kind: Json) -> str:
    name = kind.get("type", "any")
    return kind.get("format") or (" or ".join(name) if isinstance(name, list) else str(name))


def _example(schema: Json, content: Json) -> Any:
    """The description's own example, else one that fits its form; None where there is no body."""
    for example in content.get("examples", {}).values():
        return example["value"]
    return _sample(schema, content["schema"]) if "schema" in content else None


def _sample(schema: Json, raw: Json, depth: int = 0) -> Any:
    kind = _resolved(schema, raw)
    if depth > DEPTH_MAX:
        return None
    for name in ("example", "default", "const"):
        if kind.get(name) is not None:
            return kind[name]
    for name in ("examples", "enum"):
        if kind.get(name):
            return kind[name][0]
    for name in ("oneOf", "anyOf", "allOf"):
        if name in kind:
            return _sample(schema, kind[name][0], depth + 1)
    type_ = kind.get("type", "object")
    type_ = type_[0] if isinstance(type_, list) else type_
    if type_ == "object":
        fields = kind.get("properties", {}).items()
        return {name: _sample(schema, child, depth + 1) for name, child in fields}
    if type_ == "array":
        return [_sample(schema, kind.get("items", {}), depth + 1)]
    return SAMPLES.get(kind.get("format", ""), SAMPLES.get(type_, "…"))


def _resolved(schema: Json, raw: Json) -> Json:
    while "$ref" in raw:
        target: Any = schema
        for step in raw["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        raw = target
    return raw


def _text(value: Any) -> str:
    return "" if value is None else json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _snippets(
    method: str, path: str, parameters: tuple[Parameter, ...], body: Any
) -> tuple[tuple[str, str], ...]:
    """The same call by curl, from Python and from JavaScript; names in braces are yours to fill."""
    url = f"{settings.BASE_URL}{PREFIX}{path}"
    once = any(p.name == "Idempotency-Key" for p in parameters)
    curl = [f'curl -X {method} "{url}"', '-H "Authorization: Bearer $FLAI_API_KEY"']
    python = ["import os, uuid, httpx", "", f'answer = httpx.request("{method}", "{url}",']
    python.append('    headers={"Authorization": f"Bearer {os.environ[\'FLAI_API_KEY\']}"')
    script = [f'const answer = await fetch("{url}", {{', f'  method: "{method}",']
    script.append("  headers: { Authorization: `Bearer ${process.env.FLAI_API_KEY}`")
    if once:
        curl.append(f'-H "Idempotency-Key: {NEW_KEY}"')
        python[-1] += ', "Idempotency-Key": str(uuid.uuid4())'
        script[-1] += ', "Idempotency-Key": crypto.randomUUID()'
    if body is not None:
        curl += ['-H "Content-Type: application/json"', "-d @body.json"]
        python[-1] += ', "Content-Type": "application/json"},'
        python.append('    content=open("body.json", "rb").read())')
        script[-1] += ', "Content-Type": "application/json" },'
        script.append('  body: await readFile("body.json"),')
        script.insert(0, 'import { readFile } from "node:fs/promises";')
    else:
        python[-1] += "})"
        script[-1] += " },"
    script += ["});", "console.log(answer.status, await answer.json());"]
    python += ["print(answer.status_code, answer.json())"]
    return (
        ("curl", " \\\n  ".join(curl)),
        ("Python", "\n".join(python)),
        ("JavaScript", "\n".join(script)),
    )
