"""What one node, the wire and the logs hold: never a row, an update, a model or a prediction."""

import base64
import itertools
import json

import numpy as np
import pytest

from apps.protocol import tickets, wire
from apps.protocol.aggregation import aggregate
from apps.protocol.circuits.copies import shared_out
from apps.protocol.contribution import clip_to_median_norm
from tests.support.corpora import everything_in
from tests.support.nodes import Buyer, NodeSet, Round, fixed
from workers.mpc import keys, sealing
from workers.node import home as homes
from workers.node.store import Store


@pytest.fixture(scope="module")
def played(three_nodes: NodeSet):
    """A round and a query, with everything that went over HTTP."""
    traffic = []
    real_post = three_nodes.http.post

    def post(url, **options):
        answer = real_post(url, **options)
        sent = json.dumps(options["json"]).encode() if "json" in options else options["content"]
        traffic.append(sent + answer.content)
        return answer

    three_nodes.http.post = post
    r = Round(three_nodes).put()
    answers = three_nodes.ask(r.job())
    held = [words_held(three_nodes, i) for i in range(3)]
    staged = [everything_in(home) for home in three_nodes.homes]
    model = three_nodes.commit(answers)[0].json()["model"]
    buyer = Buyer(three_nodes, model)
    row = [[0.7512, -1.2534]]
    query = buyer.query(row)
    out = three_nodes.ask(buyer.job(query), uploads=[query])
    prediction = buyer.open(query, out)
    three_nodes.http.post = real_post
    return {
        "round": r,
        "held": held,
        "staged": staged,
        "openings": answers[0].json()["openings"],
        "model": model,
        "query": query,
        "row": row,
        "prediction": prediction,
        "traffic": b"\n".join(traffic),
        "nodes": three_nodes,
    }


def open_store(nodes, i):
    """The store as a thief with the node's whole home reads it."""
    return Store(nodes.homes[i] / "store.sqlite", homes.load(nodes.homes[i]).store_key)


def words_held(nodes, i):
    """{share id: (first, second)} of everything that is still there."""
    store = open_store(nodes, i)
    ids = [row[0] for row in store._db.execute("SELECT share_id FROM shares")]
    shares = {share_id: store.share(share_id) for share_id in ids}
    store.close()
    return {id_: s.words for id_, s in shares.items() if s is not None and s.words is not None}


def dumps(played, i):
    """All that node i's store ever held, decrypted: with the inputs before the round was committed,
    and after the query."""
    return played["staged"][i], everything_in(played["nodes"].homes[i])


def secrets_of(played):
    """Every secret value sequence of the round, with its share id where it has one."""
    r = played["round"]
    listed = [(u["ticket"]["share_id"], fixed(w)) for u, w in zip(r.uploads["update"], r.weights)]
    listed.append((r.uploads["holdout"][0]["ticket"]["share_id"], fixed(r.holdout)))
    return listed


def appears(values, text):
    """Do two neighbouring secret values appear, as words or as text, in any usual writing?"""
    flat = np.asarray(values).reshape(-1)
    raw = text if isinstance(text, bytes) else text.encode()
    # zeros and ones are everywhere: a small number beside one is found in SQLite's own index, too
    telling = [p for p in itertools.pairwise(flat) if not {0, 2**16} & set(map(abs, p))]
    assert telling, "nothing here could be told from chance"
    for pair in telling:
        data = np.array(pair, dtype="<i8").tobytes()
        floats = [v / 2**16 for v in pair]
        forms = [data, data.hex().encode(), data[::-1], np.array(floats).tobytes()]
        for offset in range(3):  # base64 of the bytes at any position
            padded = base64.b64encode(bytes(offset) + data)
            forms.append(padded[4 * (offset > 0) : -4])
        for sep in (",", ", ", " "):
            forms += [f"{pair[0]}{sep}{pair[1]}".encode()]
            forms += [f"{floats[0]}{sep}{floats[1]}".encode()]
            forms += [f"{floats[0]:.3f}{sep}{floats[1]:.3f}".encode()]
        if any(form in raw for form in forms):
            return True
    return False


def test_the_search_finds_what_it_should():
    values = fixed([0.75, -1.25, 3.5])
    assert appears(values, b"xx" + values.tobytes())
    assert appears(values, wire.b64(b"abcde" + values.tobytes()))
    assert appears(values, "[0.75, -1.25]") and not appears(values, "0.75 and so on")


@pytest.mark.parametrize("i", range(3))
def test_a_node_holds_two_of_three_words_and_the_third_is_nowhere(played, i):
    before, after = dumps(played, i)
    for share_id, values in secrets_of(played):
        first, second = played["held"][i][share_id]
        missing = values.view(np.uint64) - first - second
        for word in (first, second, first + second):
            assert not np.any(word == values.view(np.uint64))
        for word in (first, second):
            assert word.astype("<u8").tobytes() in before  # it is the inputs that are searched
        for everything in (before, after):
            assert missing.astype("<u8").tobytes() not in everything
            assert missing.astype("<u8").tobytes()[:8] not in everything


@pytest.mark.parametrize("i", range(3))
def test_no_secret_is_in_a_nodes_store_even_decrypted(played, i):
    raw = b"".join(p.read_bytes() for p in played["nodes"].homes[i].glob("store.sqlite*"))
    for everything in (*dumps(played, i), raw):
        for _share_id, values in secrets_of(played):
            assert not appears(values, everything)
        assert not appears(fixed(played["row"]), everything)


@pytest.mark.parametrize("i", range(3))
def test_what_has_served_is_deleted_and_only_the_model_stays(played, i):
    held = words_held(played["nodes"], i)
    used = [share_id for share_id, _values in secrets_of(played)]
    used.append(played["query"]["ticket"]["share_id"])
    assert not set(used) & set(held)
    store = open_store(played["nodes"], i)
    assert store.model(played["model"]) is not None
    store.close()


def test_any_two_stores_hold_the_model_and_no_single_one_does(played):
    """Two nodes' words add up to the aggregate of the updates; one node's are noise to it."""
    stores = [open_store(played["nodes"], i) for i in range(3)]
    models = [s.model(played["model"]) for s in stores]
    for s in stores:
        s.close()
    f = models[0].ticket["f"]
    opened = played["openings"]
    expected = aggregate(
        clip_to_median_norm(np.array(played["round"].weights)),
        shared_out(opened["phi_milli"], opened["copies"]),
    )
    assert len(expected) == 3
    for i in range(3):
        first, second = models[i].words
        # node i's second word is node i+1's first
        assert np.array_equal(second, models[(i + 1) % 3].words[0])
        joined = first + second + models[(i + 1) % 3].words[1]
        assert np.abs(joined.view(np.int64) / 2.0**f - expected).max() < 0.001
        for own in (first, second, first + second, first - second):
            assert np.abs(own.view(np.int64) / 2.0**f - expected).min() > 1


def test_nothing_on_the_wire_or_in_the_logs_is_in_the_clear(played):
    texts = {"http": played["traffic"], "logs": played["nodes"].logs().encode()}
    secret = [values for _share_id, values in secrets_of(played)] + [fixed(played["row"])]
    for values in secret:
        for name, text in texts.items():
            assert not appears(values, text), name
    prediction = float(played["prediction"][0])
    for text in texts.values():
        assert f"{prediction:.4f}".encode() not in text
        for node in range(3):
            assert keys.load(played["nodes"].homes[node] / "sign.key").hex().encode() not in text
            home = homes.load(played["nodes"].homes[node])
            assert all(key.hex().encode() not in text for key in (home.root_key, home.store_key))


def test_one_nodes_keys_and_all_traffic_open_two_words_only(played):
    """The server kept every upload and has node 0's home: word 0 stays closed to it."""
    hpke = keys.hpke_key(keys.load(played["nodes"].homes[0] / "hpke.key"))
    upload = played["round"].uploads["update"][0]
    sealing.open_upload(upload, 0, hpke)
    for other in (1, 2):
        with pytest.raises(sealing.SealError):
            sealing.open_upload(upload, other, hpke)
    id_bytes = bytes.fromhex(tickets.ticket_id(upload["ticket"]))
    info = sealing.SEAL_CONTEXT + id_bytes + bytes.fromhex(upload["ticket"]["nodes"][0])
    opened, _ = sealing._unseal(wire.unb64(upload["envelopes"][0]), hpke, info)
    assert set(opened["words"]) == {"1", "2"}
