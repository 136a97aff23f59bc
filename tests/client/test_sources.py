"""The same rows from CSV, Parquet and FHIR are the same table; a wrong file is named."""

from __future__ import annotations

import builtins
import copy
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_diabetes

from apps.protocol.rfm_spec import check_spec
from apps.protocol.wire import is_hex
from workers.client import data, sources
from workers.client.home import Home

LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
COLUMNS = (("glucose", "2345-7", "mg/dL"), ("bmi", "39156-5", "kg/m2"), ("systolic", "8480-6", ""))
PATH = "patients.ndjson"


def spec(**changes: Any) -> dict[str, Any]:
    return check_spec(
        {
            "objective": "Progression",
            "standard": "hl7-fhir-r4",
            "features": [
                *({"name": n, "code": c, "unit": u} for n, c, u in COLUMNS),
                {"name": "age", "code": "30525-0"},
                {"name": "sex", "code": "46098-0"},
            ],
            "label": {"name": "worse", "system": "urn:demo", "code": "worse"},
            "strata": {"column": "region", "values": ["north", "south"]},
            "price_micro": "1",
            "funding": {"target_micro": "1000000", "deadline_s": 60},
        }
        | changes
    )


def schema(**options: Any) -> data.Schema:
    return data.Schema.of_spec(spec(), **options)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """Eighty patients of the diabetes data, in units as a laboratory has them."""
    found = load_diabetes()
    made = []
    for i, (x, y) in enumerate(zip(found.data[:80], found.target[:80])):
        made.append(
            {
                "glucose": repr(round(float(100 + 500 * x[9]), 1)),
                "bmi": repr(round(float(26 + 90 * x[2]), 2)),
                "systolic": "" if i % 9 == 0 else repr(round(float(120 + 300 * x[3]))),
                "age": str(round(48 + 250 * float(x[0]))),
                "sex": str(int(x[1] > 0)),
                "worse": str(int(y > 140)),
                "region": "north" if i % 2 else "south",
            }
        )
    return made


def observation(patient: str, code: str, **value: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"{patient}-{code}",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": "2024-06-30T10:00:00+02:00",
        **value,
    }


def quantity(value: Any, unit: str) -> dict[str, Any]:
    return {"valueQuantity": {"value": value, "unit": unit, "system": UCUM, "code": unit}}


def resources(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The rows as a hospital's export has them: blood pressure as a panel, age as a birth date."""
    made: list[dict[str, Any]] = []
    for i, row in enumerate(rows):
        patient = f"p{i}"
        made.append(
            {
                "resourceType": "Patient",
                "id": patient,
                "gender": "female" if row["sex"] == "1" else "male",
                "birthDate": f"{2024 - int(row['age'])}-06-30",
                "address": [{"state": row["region"], "country": "XY"}],
            }
        )
        glucose, bmi = float(row["glucose"]), float(row["bmi"])
        old = observation(patient, "2345-7", **quantity(999, "mg/dL"))
        made.append(old | {"id": f"{patient}-old", "effectiveDateTime": "2021-01"})
        made.append(observation(patient, "2345-7", **quantity(glucose, "mg/dL")))
        wrong = observation(patient, "2345-7", **quantity(1, "mg/dL"))
        made.append(wrong | {"status": "entered-in-error", "effectiveDateTime": "2024-07-01"})
        made.append(observation(patient, "39156-5", **quantity(bmi, "kg/m2")))
        if row["systolic"]:
            part = {"code": {"coding": [{"system": LOINC, "code": "8480-6"}]}}
            part |= quantity(float(row["systolic"]), "mm[Hg]")
            made.append(observation(patient, "85354-9", component=[part]))
        worse = observation(patient, "worse", valueBoolean=row["worse"] == "1")
        worse["code"] = {"coding": [{"system": "urn:demo", "code": "worse"}]}
        made.append(worse)
    return made


def ndjson(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(resource) + "\n" for resource in found))
    return path


@pytest.fixture
def table(tmp_path: Path, rows: list[dict[str, str]]) -> data.Table:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return data.read_table(path, schema(), need_strata=True)


def same(one: data.Table, other: data.Table) -> bool:
    return (
        np.array_equal(one.features, other.features)
        and np.array_equal(one.labels, other.labels)
        and one.strata.tolist() == other.strata.tolist()
        and one.missing == other.missing
    )


def test_parquet_holds_the_same_rows(table, rows, tmp_path: Path) -> None:
    arrays = {
        name: [None if r[name] == "" else float(r[name]) for r in rows]
        for name in ("glucose", "bmi", "systolic", "age")
    }
    arrays["systolic"][0] = float("nan")
    columns: dict[str, Any] = {name: pa.array(values) for name, values in arrays.items()}
    columns["sex"] = pa.array([int(r["sex"]) for r in rows], pa.int8())
    columns["worse"] = pa.array([r["worse"] == "1" for r in rows])
    columns["region"] = pa.array([r["region"] for r in rows]).dictionary_encode()
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    read = data.read_table(tmp_path / "rows.parquet", schema(), need_strata=True)
    assert same(table, read)


@pytest.mark.parametrize("form", ["ndjson", "bundle", "folder"])
def test_fhir_holds_the_same_rows(table, rows, tmp_path: Path, form: str) -> None:
    found = resources(rows)
    path = tmp_path / PATH
    if form == "ndjson":
        ndjson(path, found[::-1])  # the latest counts, not the last
    elif form == "bundle":
        path = tmp_path / "bundle.json"
        entries = []
        for resource in found:
            url = None
            if resource["resourceType"] == "Patient":
                url = f"urn:uuid:{resource['id']}"
            else:
                patient = resource["subject"]["reference"].split("/")[1]
                resource = resource | {"subject": {"reference": f"urn:uuid:{patient}"}}
            entries.append({"fullUrl": url, "resource": resource})
        path.write_text(json.dumps({"resourceType": "Bundle", "type": "batch", "entry": entries}))
    else:
        path = tmp_path / "export"
        path.mkdir()
        for kind in ("Patient", "Observation"):
            ndjson(path / f"{kind}.ndjson", [r for r in found if r["resourceType"] == kind])
    read = data.read_table(path, schema(), need_strata=True)
    if form == "ndjson":
        flipped = table.features[::-1], table.labels[::-1]
        assert np.array_equal(read.features, flipped[0]) and np.array_equal(read.labels, flipped[1])
    else:
        assert same(table, read)
    salt = b"salt"
    first = sources.digest(path, salt)
    assert is_hex(first, 32) and first != sources.digest(path, b"other")
    file = sources.files(path)[0]
    file.write_text(file.read_text() + "\n")
    assert sources.digest(path, salt) != first


def refused(path: Path, wanted: data.Schema | None = None) -> str:
    with pytest.raises(data.DataError) as error:
        data.read_table(path, wanted or schema(), need_strata=True)
    return error.value.text


def test_resources_that_do_not_fit_are_named(rows, tmp_path: Path) -> None:
    found, path = resources(rows), tmp_path / PATH
    place = next(i for i, r in enumerate(found) if r["id"] == "p3-2345-7")

    def spoilt(**changes: Any) -> Path:
        return ndjson(path, [*found[:place], found[place] | changes, *found[place + 1 :]])

    said = refused(spoilt(**quantity(5.4, "mmol/L")))
    assert "Observation/p3-2345-7, “glucose”: it is in mmol/L, the request wants mg/dL" in said
    assert "no unit" in refused(spoilt(valueQuantity={"value": 5.4}))
    assert "is no quantity" in refused(spoilt(valueQuantity={"value": "high", "code": "mg/dL"}))
    assert "is no date" in refused(spoilt(effectiveDateTime="yesterday"))
    assert "is not a number" in refused(spoilt(valueQuantity=None, valueString="high"))
    path.write_text(json.dumps(found[0]) + '\n{"resourceType": "Obs')
    assert refused(path) == f"{PATH}, line 2 is not valid JSON."
    path.write_text('{"resourceType": "Observation", "valueQuantity": {"value": NaN}}')
    assert "not valid JSON" in refused(path)
    path.write_text('{"rows": []}')
    assert "no resourceType" in refused(path)
    ndjson(path, [r for r in found if r["resourceType"] != "Patient"])
    assert "has no Patient" in refused(path)
    ndjson(path, [*found, found[0] | {"gender": "other"}])
    assert "Patient/p0 is there twice" in refused(path)
    (tmp_path / "empty").mkdir()
    assert "has no .json or .ndjson file" in refused(tmp_path / "empty")


def test_patients_without_the_label_and_strangers_are_counted(rows, tmp_path: Path) -> None:
    found = resources(rows)
    lost = [r for r in found if r["id"] != "p4-worse"]
    lost.append(observation("nobody", "2345-7", **quantity(1, "mg/dL")))
    read = data.read_table(ndjson(tmp_path / PATH, lost), schema(), need_strata=True)
    assert read.rows == len(rows) - 1
    assert read.notes[0].startswith("1 patients without the label")
    assert "1 Observations of patients that are not in the file" in read.notes[1]


SNOMED = "http://snomed.info/sct"
ASTHMA = {"system": SNOMED, "code": "195967001", "type": "boolean", "resource": "Condition"}
SMOKING = {"name": "smoking", "type": "category", "levels": ["never", "former", "LA18976-3"]}
CLINICAL = spec(
    features=[
        {"name": "glucose", "code": "2345-7", "unit": "mg/dL"},
        {"name": "sex", "code": "46098-0", "type": "category", "levels": ["male", "female"]},
        SMOKING | {"code": "72166-2"},
        {"name": "asthma", **ASTHMA},
        {"name": "asthma now", "active": True, **ASTHMA},
    ]
)


def condition(patient: str, clinical: str, verified: str = "confirmed") -> dict[str, Any]:
    coded = {
        "coding": [{"system": "urn:local", "code": "7"}, {"system": SNOMED, "code": "195967001"}]
    }
    return {
        "resourceType": "Condition",
        "id": f"{patient}-asthma",
        "code": coded,
        "subject": {"reference": f"Patient/{patient}"},
        "clinicalStatus": {"coding": [{"code": clinical}]},
        "verificationStatus": {"coding": [{"code": verified}]},
    }


def test_conditions_gender_and_coded_values_are_categories(rows, tmp_path: Path) -> None:
    """M-FL1. A condition that is over, refuted, in error, of another code or of nobody here."""
    found = [*resources(rows), condition("p0", "active"), condition("p1", "resolved")]
    found += [condition("p2", "active", "refuted"), condition("p3", "active", "entered-in-error")]
    found += [
        condition("p4", "relapse"),
        condition("p4", "resolved"),
        condition("nobody", "active"),
    ]
    found.append(condition("p5", "active") | {"code": {"coding": [{"code": "195967001"}]}})
    for patient, coding in (
        ("p0", {"code": "8517006", "display": "former"}),
        ("p1", {"code": "LA18976-3"}),
    ):
        said = observation(patient, "72166-2", valueCodeableConcept={"coding": [coding]})
        found.append(said)
    found.append(observation("p2", "72166-2", valueCodeableConcept={"text": "never"}))
    wanted, path = data.Schema.of_spec(CLINICAL), tmp_path / PATH
    read = data.read_table(ndjson(path, found), wanted, need_strata=True)
    assert read.columns == ("glucose", "sex", "smoking", "asthma", "asthma now")
    female = [float(row["sex"]) for row in rows]
    assert read.features[:, 1].tolist() == female and read.missing == len(rows) - 3
    assert read.features[:3, 2:4].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert np.flatnonzero(read.features[:, 4]).tolist() == [0, 1, 4]
    assert np.flatnonzero(read.features[:, 5]).tolist() == [0, 4]
    assert "1 Observations or Conditions of patients that are not in the file" in str(read.notes)

    other = [r | {"gender": "other"} if r["id"] == "p6" else r for r in found]
    said = refused(ndjson(path, other), wanted)
    assert "Patient/p6, column “sex”: “other” is none of its levels, which are “male”, “fe" in said
    unknown = [r | {"gender": "unknown"} if r["id"] == "p6" else r for r in found]
    again = data.read_table(ndjson(path, unknown), wanted)
    assert again.missing == read.missing + 1
    called = [f | {"type": "number"} for f in CLINICAL["features"]]
    with pytest.raises(data.DataError, match="“asthma”: whether there is a Condition is a boolean"):
        data.Schema.of_spec({**CLINICAL, "features": called})
    for others in ([], [condition("nobody", "active")]):
        assert "has no Condition of any patient in it, so “asthma” would be" in refused(
            ndjson(path, [*resources(rows), *others]), wanted
        )
    found = [r for r in found if r["resourceType"] != "Condition" or r["id"] == "p1-asthma"]
    told = str(data.read_table(ndjson(path, found), wanted).notes)
    assert f"“asthma now”: nobody has 195967001 of {SNOMED}" in told
    assert "“asthma”: nobody" not in told


def test_what_is_yes_or_no_may_be_coded(rows, tmp_path: Path) -> None:
    found = resources(rows)
    for patient, code, said in (("p0", "LA33-6", "Yes"), ("p1", "LA32-8", "No")):
        coding = {"system": "http://loinc.org", "code": code, "display": said}
        value = {"coding": [coding], "text": said}
        found.append(observation(patient, "72166-2", valueCodeableConcept=value))
    names = {"smoker": "72166-2", "sex": "46098-0"}
    asked = [{"name": name, "type": "boolean", "code": code} for name, code in names.items()]
    wanted = data.Schema.of_spec(spec(features=asked))
    read = data.read_table(ndjson(tmp_path / PATH, found), wanted)
    assert read.features[:2, 0].tolist() == [1, 0] and read.missing == len(rows) - 2
    assert read.features[:, 1].tolist() == [float(row["sex"]) for row in rows]


def test_a_site_names_its_own_codes_and_region(rows, tmp_path: Path) -> None:
    bare = spec(label={"name": "worse"}, standard="tabular-csv")
    path = ndjson(tmp_path / PATH, resources(rows))
    with pytest.raises(data.DataError, match="“worse” has no code"):
        data.Schema.of_spec(bare, fhir={"codes": {}})
    with pytest.raises(data.DataError, match="region must be one of"):
        schema(fhir={"region": "planet"})
    own = {"codes": {"worse": "urn:demo|worse"}, "region": "state"}
    assert data.read_table(path, data.Schema.of_spec(bare, fhir=own)).rows == len(rows)
    assert "“XY” is no value of “region”" in refused(path, schema(fhir={"region": "country"}))


# ---- Parquet that does not fit -----------------------------------------------------------------


def parquet(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "rows.parquet"
    base = {
        "glucose": [90.0, 95, 100, 105, 110, 120, 130, 99, 98, 97, 101, 102],
        "bmi": [20.0, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31],
        "systolic": [120.0, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 131],
        "age": list(range(30, 42)),
        "sex": [0, 1] * 6,
        "worse": [0, 0, 1, 1] * 3,
        "region": ["north", "south"] * 6,
    } | columns
    pq.write_table(pa.table({k: v for k, v in base.items() if v is not None}), path)
    return path


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"bmi": None, "BMI": [1.0] * 12}, "lacks the columns “bmi”. It has others"),
        ({"bmi": ["fat"] * 12}, "rows.parquet, row 1, column “bmi”: “fat” is not a number"),
        ({"bmi": [20.0] * 11 + [float("inf")]}, "row 12, column “bmi”: “inf” is not a number"),
        ({"bmi": [float("nan")] * 12}, "“bmi” has no value in any row"),
        ({"worse": [1] * 12}, "every row has the label 1; both classes are needed"),
        ({"worse": [0, 1, None] * 4}, "row 3: the label “worse” is missing"),
        ({"worse": [0, 1, 2] * 4}, "a binary label has two"),
        ({"bmi": [[1.0]] * 12}, "nested columns: “bmi”"),
    ],
)
def test_parquet_that_does_not_fit_is_named(tmp_path: Path, columns, said: str) -> None:
    assert said in refused(parquet(tmp_path, **columns))


def test_what_is_no_parquet_file_is_said(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 but no more")
    assert "is not a Parquet file that can be read" in refused(path)
    good, honest = parquet(tmp_path), builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return honest(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "reading Parquet needs pyarrow" in refused(good)


def test_a_typing_error_far_out_is_moved_in_and_said(tmp_path: Path) -> None:
    values = [20.0, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 1e9]
    read = data.read_table(parquet(tmp_path, bmi=values, systolic=[120.0] * 12), schema())
    assert read.features[:11, 1].tolist() == values[:11] and read.features[11, 1] < 1000
    assert any("“bmi”: 1 values far outside" in note for note in read.notes)
    assert any("“systolic” has the same value in every row" in note for note in read.notes)
    ranged = spec(features=[{"name": "bmi", "min": "10", "max": "60"}], standard="tabular-csv")
    read = data.read_table(tmp_path / "rows.parquet", data.Schema.of_spec(ranged))
    assert read.features[11, 0] == 60.0 and read.clamped == 1


def test_an_agent_attests_and_says_what_it_noticed(rows, tmp_path: Path) -> None:
    from workers.client.agent import Agent

    ndjson(tmp_path / PATH, resources(rows))
    (tmp_path / "agent.toml").write_text(f'data = "{PATH}"\n')
    lines: list[str] = []
    agent = Agent(Home(tmp_path), "custodian", say=lines.append)
    found = agent.table(spec())
    attestation, salt = agent._attestation({"slug": "x", "spec": spec()}, found, "pid")
    assert found.rows == len(rows) and lines[0].startswith(f"{PATH}: 80 rows")
    assert attestation["dataset_commitment"] == sources.digest(tmp_path / PATH, bytes.fromhex(salt))


def test_what_fhir_has_otherwise_is_said_with_file_and_resource(rows, tmp_path: Path) -> None:
    found, path = resources(rows[:12]), tmp_path / PATH
    place = {resource["id"]: number for number, resource in enumerate(found)}

    def spoilt(who: str, **changes: Any) -> Path:
        at = place[who]
        return ndjson(path, [*found[:at], found[at] | changes, *found[at + 1 :]])

    for who, changes, said in (
        ("p3", {"address": {"state": "north"}}, "“address” is a list of objects"),
        ("p3", {"address": [None]}, "“address” is a list of objects"),
        ("p3", {"birthDate": "2025-01-01"}, "birthDate is after its Observations"),
        ("p3-39156-5", quantity(10**400, "kg/m2"), "is no quantity"),
        ("p3-39156-5", {"valueQuantity": 7}, "“valueQuantity” is an object"),
        ("p3-39156-5", {"status": ["final"]}, "“status” is a text"),
        ("p3-worse", {"valueBoolean": None, "valueCodeableConcept": "yes"}, "is an object"),
        ("p3-worse", {"valueBoolean": "yes"}, "“valueBoolean” is true or false"),
        ("p3-worse", {"component": {}}, "“component” is a list of objects"),
    ):
        text = refused(spoilt(who, **changes))
        kind = "Patient" if who == "p3" else "Observation"
        assert text.startswith(f"{PATH}, {kind}/{who}") and said in text, text
    bundle = tmp_path / "bundle.json"
    entry = {"fullUrl": ["urn:uuid:1"], "resource": found[0]}
    bundle.write_text(json.dumps({"resourceType": "Bundle", "entry": [entry]}))
    assert refused(bundle).startswith("bundle.json, an entry: in FHIR R4 “fullUrl” is a text")


def test_no_time_is_no_age_and_other_line_ends_are_content(rows, tmp_path: Path) -> None:
    found = resources(rows[:12])
    for resource in found:
        if str(resource["id"]).startswith("p3-"):
            resource.pop("effectiveDateTime", None)
    found[0]["text"] = {"div": "one\u2028two\u0085three"}
    path = tmp_path / PATH
    path.write_text("\r\n".join(json.dumps(r, ensure_ascii=False) for r in found), "utf-8")
    read = data.read_table(path, schema(), need_strata=True)
    ages = np.array([float(row["age"]) for row in rows[:12]])
    others = np.arange(12) != 3
    assert np.array_equal(read.features[others, 3], ages[others])
    assert read.features[3, 3] == pytest.approx(ages[others].mean())
    assert any(note.startswith("1 patients have no age") for note in read.notes)


JSON = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, -1, 10**400, 1e308, "", "x", "2024"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of everything in a piece of JSON."""
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
    inner = [place for _, v in pairs if isinstance(v, dict | list) for place in places(v)]
    return [*((value, key) for key, _ in pairs), *inner]


@given(draw=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_an_export_has_it_is_a_table_or_a_data_error(rows, tmp_path, draw) -> None:
    entries = [
        {"fullUrl": f"urn:uuid:{i}", "resource": r} for i, r in enumerate(resources(rows[:12]))
    ]
    found = copy.deepcopy({"resourceType": "Bundle", "entry": entries})
    for _ in range(draw.draw(st.integers(1, 3))):
        holder, key = draw.draw(st.sampled_from(places(found)))
        holder[key] = draw.draw(JSON)
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(found))
    try:
        table = data.read_table(path, schema(), need_strata=True)
    except data.DataError:
        return
    assert np.isfinite(table.features).all()


def test_names_that_look_alike_are_alike(rows, tmp_path: Path) -> None:
    wanted = data.Schema.of_spec(
        spec(features=[{"name": "fi\u00e8vre"}], standard="tabular-csv", strata=None)
    )
    path = tmp_path / "rows.csv"
    lines = [f"{36 + i},{i % 2}" for i in range(12)]
    path.write_text("\n".join(["fie\u0300vre,worse", *lines]), "utf-8")
    assert data.read_table(path, wanted).columns == ("fi\u00e8vre",)
    path.write_text("\n".join(["fie\u0300vre,fi\u00e8vre,worse", "1,2,0"]), "utf-8")
    assert "names a column twice" in refused(path, wanted)
    path.write_text("\n".join(["fi\u00e8vre,worse", *lines, "1_000,1"]), "utf-8")
    assert "“1_000” is not a number" in refused(path, wanted)
