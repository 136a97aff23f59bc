"""A node's share of a model in Shamir shares, told to it by the others: one that lost its store, or
was away when the model was made or refreshed.

Any t + 1 of the others that keep the model in the same sharing can, and nobody else learns anything
(mpc/shamir_refresh.py). Who asks names the helpers; each of them sees by the certificate of the
connection whose share it is, which no other node can have. All that are there help: from t + 2 on
a wrong share is found, from t + 3 on the node that told it is named. A helper that falls leaves the
asker with nothing, and it asks those that are left.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.protocol import wire
from apps.protocol.tickets import SHAMIR, threshold_of
from workers.mpc import shamir_shares
from workers.mpc.engines import field89, shamir_codec
from workers.mpc.engines.counted import Disagreement
from workers.mpc.sealing import Words
from workers.mpc.shamir_refresh import masked
from workers.mpc.transport import TransportError
from workers.node.errors import Unavailable
from workers.node.records import StoredModel

if TYPE_CHECKING:
    from workers.mpc.mesh import Mesh

HELP_S = 60.0

Json = dict[str, Any]

log = logging.getLogger("flai.rebuilding")


def help_rebuild(mesh: Mesh, asker: int, asked: Json, held: StoredModel | None) -> bytes:
    """This node's masked share for `asker`; nothing where it cannot help, and the other helpers
    hear of it. `held` is the model in the sharing that is asked for.

    asked = {"rebuild": model, "sharing", "helpers": [node ids], "id"}. Raises: KeyError, TypeError,
    ValueError for what makes no sense.
    """
    helpers = [int(i) for i in asked["helpers"]]
    if helpers != sorted(set(helpers)) or asker in helpers or mesh.me not in helpers:
        raise ValueError("these are no helpers")
    sid, context = _session_id(asker, asked), wire.canonical(asked)
    t = 0 if held is None else SHAMIR.get(str(held.ticket.get("engine")), 0)
    if held is None or not t or len(helpers) <= t:
        mesh.refuse(sid, "not_held", members=helpers)
        return b""
    bare = wire.canonical({**held.ticket, "salts": {}})
    try:
        session = mesh.open(sid, deadline=time.monotonic() + HELP_S, members=helpers)
        try:
            return masked(session, helpers, held.words, t=t, lost=asker, context=context + bare)
        except BaseException:
            session.abort("peer_lost")
            raise
        finally:
            session.close()
    except (TransportError, Disagreement) as error:
        log.warning("could not help", extra={"peer": asker, "why": f"{error}"})
        return b""


def rebuild(mesh: Mesh, ticket: Mapping[str, Any], helpers: Sequence[int]) -> StoredModel:
    """This node's share of the model of that ticket, which those helpers tell alike.

    Raises: Unavailable("no_copy") when they do not give it, or not alike.
    """
    t = threshold_of(ticket["engine"])
    while len(helpers) > t:
        try:
            words = _rebuilt(mesh, ticket, helpers, t)
        except (TransportError, ValueError, Disagreement) as error:
            log.warning("not rebuilt", extra={"model": ticket["model"], "why": f"{error}"})
            left = [i for i in helpers if i in mesh.peers_up()]
            if len(left) == len(helpers):  # nobody fell: they have refreshed it, say
                break
            helpers = left
            continue
        # no receipt has a hash of it: nobody could check a salt
        return StoredModel(ticket={**ticket, "salts": {}}, words=words)
    raise Unavailable("no_copy", f"The others can't rebuild this share of {ticket['model']}.")


def _rebuilt(
    mesh: Mesh, ticket: Mapping[str, Any], helpers: Sequence[int], t: int
) -> tuple[Words, ...]:
    asked = {
        "rebuild": ticket["model"],
        "sharing": ticket["sharing"],
        "helpers": list(helpers),
        "id": secrets.token_hex(16),
    }
    question, count = wire.canonical(asked), int(np.prod(ticket["shape"]))
    deadline = time.monotonic() + HELP_S

    def told(helper: int) -> field89.Limbs:
        return shamir_codec.decoded(mesh.ask(helper, question, deadline=deadline), count)

    with ThreadPoolExecutor(len(helpers)) as pool:  # they wait for one another
        shares = list(pool.map(told, helpers))
    shamir_shares.check_fit(helpers, shares, t)
    mine = shamir_shares.at_point(helpers, shares, mesh.me + 1)
    return tuple(limb.reshape(ticket["shape"]) for limb in field89.reduced(mine))


def _session_id(asker: int, asked: Json) -> bytes:
    """16 bytes naming one rebuilding: helpers that were asked for the same one meet."""
    name = b"flai/rebuild-session/v1\0" + wire.canonical([asker, asked])
    return hashlib.sha256(name).digest()[:16]
