"""How a request's label becomes a number on shares, and a score a number on the label's scale.

binary and classes: bits. count: as it is. number: t = (y − middle) / unit, so that the plausible
range [min, max] becomes ±2: public, and the same for every site. survival: (time / unit, event),
so that the longest time watched becomes 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apps.protocol.circuits import CLASSES, ModelClass
from apps.protocol.circuits.resolution import LABEL
from apps.protocol.encoding import Feature, width

HALF_RANGE = 2.0


def class_of(params: Mapping[str, Any]) -> ModelClass:
    """The model class that a spec or a SubDAO's parameters name. Raises: KeyError."""
    return CLASSES[params.get("model_class", "logistic")]


def extras_of(model: ModelClass, params: Mapping[str, Any]) -> dict[str, int]:
    """The parameters that this class's circuits have beside everyone's, of a spec, a SubDAO's
    parameters or a listing: from its label, and the units that it names for hidden layers."""
    classes = {"classes": len(params["label"]["classes"])} if "classes" in model.extras else {}
    return classes | dict(zip(model.unit_names, params.get("hidden") or ()))


def weights_of(model: ModelClass, features: Sequence[Feature], params: Mapping[str, Any]) -> int:
    """How many numbers a model of these features has, of a spec or a SubDAO's parameters."""
    return model.weights({"features": width(features), **extras_of(model, params)})


def scale_of(model: ModelClass, label: Mapping[str, Any]) -> tuple[float, float]:
    """(middle, unit) of a label: y = middle + unit · t."""
    if model.label != "number":
        return 0.0, 1.0
    low, high = float(label["min"]), float(label["max"])
    return (low + high) / 2, (high - low) / 2 / HALF_RANGE


def time_unit_of(label: Mapping[str, Any]) -> float:
    """How long a time of 1 is, of a label that is a time until an event."""
    return float(label["max"]) / HALF_RANGE


def reading_of(model: ModelClass, resolution: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """How the words of this class's answers are read, for a program that lacks this package.

    circuit, kind (one of LABELS), extras (of the circuit's parameters), words (of each row's
    answer), name (of the label), names (of its values, or none), middle and unit (of a score),
    bands (edges) and grid (values), these on the label's own scale.
    """
    extras, label = extras_of(model, params), params["label"]
    middle, unit = scale_of(model, label)
    positive = label.get("positive", "1")
    names = {"binary": [f"not {positive}", positive], "classes": label.get("classes")}
    return {
        "circuit": model.infer_id(resolution),
        "kind": model.label,
        "resolution": resolution,
        "extras": extras,
        "words": 1 if resolution == LABEL else model.outputs(extras),
        "name": label["name"],
        "names": names.get(model.label) or [],
        "middle": middle,
        "unit": unit,
        "bands": [middle + unit * edge for edge in model.scale.bands],
        "grid": [middle + unit * value for value in model.scale.grid],
    }
