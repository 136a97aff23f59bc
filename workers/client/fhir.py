"""FHIR R4 resources as rows: one for each Patient, from its Observations and Conditions.

Read are Bundles (JSON) and resources one a line (NDJSON, as bulk exports give them), in one file or
several. A column names a code, LOINC unless it says otherwise:

- an Observation of that code, or a component of one: its quantity, integer, boolean, coded value or
  string; of several the latest by effective (else issued) time. Only final, amended and corrected
  ones count. A quantity must have the request's unit, where it names one.
- of a category or boolean, which of an Observation's codes, their displays and text is a level.
- whether the patient has a Condition of that code, by no rules of a hierarchy: 1 or, with none
  recorded, 0. Refuted ones and those entered in error are none; where it must be `active`, only
  those are any whose clinical status is active, recurrence or relapse.
- age (LOINC 30525-0) and sex (LOINC 46098-0, 76689-9: female 1, male 0; as a category the Patient's
  gender) come from the Patient where no Observation has them; age in whole years at the latest
  Observation that the row uses, none where these say no time.
- a region comes from the Patient's first address.

A patient without the label is no row; how many there were is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apps.protocol.encoding import NO_YES, place_of
from workers.client.errors import DataError, is_number

LOINC = "http://loinc.org"
AGE = frozenset({(LOINC, "30525-0")})
SEX = frozenset({(LOINC, "46098-0"), (LOINC, "76689-9")})
COUNTED = frozenset({"final", "amended", "corrected"})
DENIED = frozenset({"refuted", "entered-in-error"})
ACTIVE = frozenset({"active", "recurrence", "relapse"})
UNKNOWN = "unknown"
REGIONS = ("state", "district", "city", "postalCode", "country")

Resource = Mapping[str, Any]
Code = tuple[str, str]


@dataclass(frozen=True)
class Wanted:
    """One column: the code that it is made of, or (`region`) the part of an address. levels: of a
    category or boolean; condition: whether there is a Condition of the code, `active` or ever."""

    column: str
    code: Code | None = None
    unit: str = ""
    region: str | None = None
    is_label: bool = False
    levels: tuple[str, ...] = ()
    condition: bool = False
    active: bool = False


@dataclass(frozen=True)
class Found:
    """Cells by patient, in the order of the files."""

    rows: list[list[str]]
    patients: list[str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Value:
    at: datetime | None
    text: str

    def is_after(self, other: _Value) -> bool:
        """Or at the same time. What says no time was before all others."""
        return other.at is None or (self.at is not None and other.at <= self.at)


def read(paths: Sequence[Path], wanted: Sequence[Wanted]) -> Found:
    """One row for each patient that has the label. Raises: DataError naming file and resource."""
    codes = {w.code: w for w in wanted if w.code is not None and not w.condition}
    conditions = [w for w in wanted if w.condition]
    patients: dict[str, Resource] = {}
    files: dict[str, str] = {}
    names: dict[str, str] = {}  # every reference that means a patient -> its id
    observations: list[tuple[str, Resource]] = []
    diagnoses: list[tuple[str, Resource]] = []
    for path in paths:
        for url, resource in _resources(path):
            kind = resource.get("resourceType")
            if kind == "Patient":
                key = f"Patient/{_id(path, resource)}"
                if patients.setdefault(key, resource) != resource:
                    raise DataError(f"{path.name}: {key} is there twice, with different content.")
                files.setdefault(key, path.name)
                names[key] = key
                names[url or key] = key
            elif kind == "Observation":
                observations.append((path.name, resource))
            elif kind == "Condition" and conditions:
                diagnoses.append((path.name, resource))
    if not patients:
        raise DataError(f"{paths[0].name} has no Patient.")
    values: dict[str, dict[Code, _Value]] = {key: {} for key in patients}
    had: dict[str, set[Wanted]] = {}
    strangers = 0
    for file, resource in (*observations, *diagnoses):
        patient = names.get(_reference(resource))
        if patient is None:
            strangers += 1
            continue
        if resource["resourceType"] == "Condition":
            had.setdefault(patient, set()).update(_had(file, resource, conditions))
            continue
        for code, value in _values(file, resource, codes):
            known = values[patient].get(code)
            if known is None or value.is_after(known):
                values[patient][code] = value
    if conditions and not had:
        raise DataError(
            f"{paths[0].name} has no Condition of any patient in it, so “{conditions[0].column}” "
            "would be no of everybody. Export them too."
        )
    return _rows(patients, files, values, had, wanted, strangers)


def _rows(
    patients: Mapping[str, Resource],
    files: Mapping[str, str],
    values: Mapping[str, Mapping[Code, _Value]],
    had: Mapping[str, set[Wanted]],
    wanted: Sequence[Wanted],
    strangers: int,
) -> Found:
    rows, kept = [], []
    label = next((at for at, w in enumerate(wanted) if w.is_label), None)
    for key, patient in patients.items():
        seen = values[key]
        last = max((value.at for value in seen.values() if value.at), default=None)
        where = f"{files[key]}, {key}"
        cells = [
            str(int(w in had.get(key, ()))) if w.condition else _cell(w, where, patient, seen, last)
            for w in wanted
        ]
        if label is None or cells[label]:
            rows.append(cells)
            kept.append(key)
    notes = []
    age = next((at for at, w in enumerate(wanted) if w.code in AGE), None)
    ageless = 0 if age is None else sum(not cells[age] for cells in rows)
    if ageless:
        notes.append(f"{ageless} patients have no age: no birthDate, or no Observation says when.")
    if len(rows) < len(patients):
        notes.append(f"{len(patients) - len(rows)} patients without the label are no rows.")
    for w in wanted:
        if w.condition and not any(w in theirs for theirs in had.values()):
            system, code = w.code or ("", "")
            notes.append(f"“{w.column}”: nobody has {code} of {system}. Is it coded so here?")
    if strangers:
        kinds = "Observations" + " or Conditions" * any(w.condition for w in wanted)
        notes.append(f"{strangers} {kinds} of patients that are not in the file are left out.")
    return Found(rows, kept, tuple(notes))


def _cell(
    w: Wanted,
    where: str,
    patient: Resource,
    seen: Mapping[Code, _Value],
    last: datetime | None,
) -> str:
    if w.region is not None:
        addresses = _objects(where, patient, "address")
        return _string(where, addresses[0], w.region) if addresses else ""
    assert w.code is not None
    if w.code in seen:
        return seen[w.code].text
    if w.code in AGE and patient.get("birthDate") and last is not None:
        born = _time(f"{where}, birthDate", patient["birthDate"])
        before_birthday = (last.month, last.day) < (born.month, born.day)
        age = last.year - born.year - before_birthday
        if age < 0:
            raise DataError(f"{where}: the birthDate is after its Observations. Correct it.")
        return str(age)
    if w.code in SEX and w.levels not in ((), NO_YES):
        gender = _string(where, patient, "gender")
        return "" if gender == UNKNOWN and place_of(w.levels, gender) is None else gender
    if w.code in SEX:
        return {"female": "1", "male": "0"}.get(str(patient.get("gender")), "")
    return ""


def _resources(path: Path) -> Iterator[tuple[str | None, Resource]]:
    """(fullUrl, resource) of each resource in a file, those in Bundles too."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path.name} can't be read as UTF-8.") from None
    if path.suffix.lower() == ".ndjson":
        # other line ends, as U+2028, may stand within a string
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield from _unpacked(_json(line, f"{path.name}, line {number}"), path)
    else:
        yield from _unpacked(_json(text, path.name), path)


def _unpacked(resource: Any, path: Path) -> Iterator[tuple[str | None, Resource]]:
    if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
        raise DataError(f"{path.name} is not FHIR: something in it has no resourceType.")
    if resource["resourceType"] != "Bundle":
        yield None, resource
        return
    entries = resource.get("entry", [])
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise DataError(f"{path.name}: the Bundle's entries are not a list of objects.")
    for entry in entries:
        if "resource" in entry:
            url = _string(f"{path.name}, an entry", entry, "fullUrl") or None
            for _, inner in _unpacked(entry["resource"], path):
                yield url, inner


def _json(text: str, where: str) -> Any:
    def constant(name: str) -> Any:
        raise ValueError(name)

    try:
        return json.loads(text, parse_constant=constant)
    except (ValueError, RecursionError):
        raise DataError(f"{where} is not valid JSON.") from None


def _id(path: Path, resource: Resource) -> str:
    if not isinstance(resource.get("id"), str) or not resource["id"]:
        raise DataError(f"{path.name}: a {resource['resourceType']} has no id.")
    return str(resource["id"])


def _reference(observation: Resource) -> str:
    """The subject's address, without what may go before "Patient/"."""
    subject = observation.get("subject")
    text = str(subject.get("reference", "")) if isinstance(subject, dict) else ""
    _, found, name = text.rpartition("Patient/")
    return f"Patient/{name.split('/')[0]}" if found else text


def _values(
    file: str, observation: Resource, codes: Mapping[Code, Wanted]
) -> Iterator[tuple[Code, _Value]]:
    """What an Observation and its components say of the wanted codes."""
    where = f"{file}, Observation/{str(observation.get('id', '?'))[:64]}"
    if _string(where, observation, "status") not in COUNTED:
        return
    for part in (observation, *_objects(where, observation, "component")):
        for code in _codes(where, part, "code"):
            if code in codes:
                text = _text(part, codes[code], where)
                if text:
                    yield code, _Value(_when(where, observation), text)


def _had(file: str, diagnosis: Resource, conditions: Sequence[Wanted]) -> Iterator[Wanted]:
    """The columns for which this is such a Condition."""
    where = f"{file}, Condition/{str(diagnosis.get('id', '?'))[:64]}"
    statuses = {
        name: {code for _, code in _codes(where, diagnosis, name)}
        for name in ("verificationStatus", "clinicalStatus")
    }
    if statuses["verificationStatus"] & DENIED:
        return
    found = set(_codes(where, diagnosis, "code"))
    for wanted in conditions:
        if wanted.code in found and (not wanted.active or statuses["clinicalStatus"] & ACTIVE):
            yield wanted


def _codes(where: str, holder: Resource, name: str) -> Iterator[Code]:
    for coding in _objects(where, _object(where, holder, name), "coding"):
        yield _string(where, coding, "system"), _string(where, coding, "code")


def _string(where: str, holder: Resource, name: str) -> str:
    """The text of that name, empty where there is none."""
    value = holder.get(name)
    if not isinstance(value, str | None):
        raise _wrong(where, name, "a text")
    return value or ""


def _object(where: str, holder: Resource, name: str) -> Resource:
    value = holder.get(name)
    if not isinstance(value, dict | None):
        raise _wrong(where, name, "an object")
    return value or {}


def _objects(where: str, holder: Resource, name: str) -> list[Resource]:
    value = holder.get(name)
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _wrong(where, name, "a list of objects")
    return value


def _wrong(where: str, name: str, kind: str) -> DataError:
    return DataError(
        f"{where}: in FHIR R4 “{name}” is {kind}. Correct the export, or leave it out."
    )


def _text(part: Resource, wanted: Wanted, where: str) -> str:
    """The value as a cell; "" where it has none (or only a bound, as "< 5")."""
    quantity = _object(where, part, "valueQuantity")
    if quantity:
        value = quantity.get("value")
        if value is None or quantity.get("comparator"):
            return ""
        if type(value) not in (int, float) or not is_number(repr(value)):
            raise DataError(f"{where}: “{str(value)[:40]}” is no quantity.")
        units = {str(quantity[name]) for name in ("code", "unit") if quantity.get(name)}
        if wanted.unit and wanted.unit not in units:
            got = " or ".join(sorted(units)) or "no unit"
            raise DataError(
                f"{where}, “{wanted.column}”: it is in {got}, the request wants {wanted.unit}."
            )
        return repr(value)
    for name, kind, called in (
        ("valueBoolean", bool, "true or false"),
        ("valueInteger", int, "a whole number"),
    ):
        value = part.get(name)
        if type(value) is kind:
            return str(int(value))
        if value is not None:
            raise _wrong(where, name, called)
    concept = _object(where, part, "valueCodeableConcept")
    codings = _objects(where, concept, "coding")
    codes, shown = ([_string(where, one, name) for one in codings] for name in ("code", "display"))
    said = [text for text in (*codes, _string(where, concept, "text"), *shown) if text]
    levels = [text for text in said if place_of(wanted.levels, text) is not None]
    return next(iter(levels or said), "") or _string(where, part, "valueString")


def _when(where: str, observation: Resource) -> datetime | None:
    """Effective time, else when it was issued; None where it says neither."""
    bounds = _object(where, observation, "effectivePeriod")
    for value in (
        observation.get("effectiveDateTime"),
        observation.get("effectiveInstant"),
        bounds.get("end") or bounds.get("start"),
        observation.get("issued"),
    ):
        if value:
            return _time(where, value)
    return None


def _time(where: str, value: Any) -> datetime:
    """A FHIR date or time: 2024, 2024-05, 2024-05-03 or a whole instant."""
    text = str(value)
    padded = text + "-01" * (2 - text.count("-")) if len(text) < 10 else text
    try:
        at = datetime.fromisoformat(padded)
    except ValueError:
        raise DataError(f"{where}: “{text[:40]}” is no date.") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
