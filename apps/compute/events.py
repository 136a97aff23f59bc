"""What has happened to the nodes."""

from __future__ import annotations

from dataclasses import dataclass

from apps.core.events import Event


@dataclass(frozen=True)
class NodesSucceeded(Event):
    """One node set follows another: a node that lost its keys has a successor. Fingerprints."""

    old: list[str]
    new: list[str]


@dataclass(frozen=True)
class ModelReshared(Event):
    """A model is kept by other nodes from now on, by fingerprint; for another engine, if one is
    named."""

    model: str
    nodes: list[str]
    engine: str = ""
