"""Who dies when, on which engine, of three, four and five nodes: nothing is lost or half-stored.

Not each with each, but so that every two of node, phase and engine meet on each number of nodes.
Where two may be dead at once, two are.
"""

import sqlite3

import pytest

from apps.protocol.tickets import RING, SHAMIR, VERIFIED
from tests.support.nodes import Buyer, Round

ROW, LOGIT = [[0.5, -1.0]], 2.0  # what the model says of it, roughly
ONE, TWO = "shamir_t1", "shamir_t2"
# Before the job, in it, when all have staged its result, when the first has committed it.
PHASES = ("before", "in", "storing", "after")
ENGINES = {3: (RING, ONE), 4: (RING, VERIFIED, ONE, RING), 5: (RING, VERIFIED, ONE, TWO)}
NEEDED = {RING: 3, VERIFIED: 4, ONE: 3, TWO: 5}


def cases():
    """(n, engine, dead, phase): with three nodes engines in turn, else each engine's own phases."""
    for n, engines in ENGINES.items():
        for i in range(n):
            for at, phase in enumerate(PHASES):
                engine = engines[(i + at) % len(engines)]
                second = {(i + 2) % n} if n - NEEDED[engine] > 1 else set()
                yield n, engine, tuple(sorted({i} | second)), phase


def group(engine, nodes, alive):
    """How these of the nodes make a model, None where they are too few."""
    if len(alive) < NEEDED[engine]:
        return None
    how = {"engine": engine, "deadline_s": 60}
    if nodes.n == 3:
        return how
    if engine in SHAMIR:
        return how | {"computing": alive, "holding": []}
    cut = len(alive) - NEEDED[engine]
    return how | {"computing": alive[cut:], "holding": alive[:cut]}


def ask(nodes, model, engine, among):
    """What the last of these say, as many as it takes, of a row."""
    computing = sorted(among[-NEEDED[engine] :])
    how = {"engine": engine, "deadline_s": 60}
    if nodes.n > 3:
        how |= {"computing": computing, "holding": []}
    buyer = Buyer(nodes, model)
    query = buyer.query(ROW, engine=engine)
    answers = nodes.ask(buyer.job(query, **how), uploads=[query])
    assert [a.status_code for a in answers] == [200] * len(computing), [a.text for a in answers]
    return buyer.open(query, answers, computing)[0]


def kept(nodes, i, asked, job):
    """(inputs that node i still has, states of the job's results there, its models of the job)."""
    shares = [share_id for listed in job["inputs"].values() for share_id in listed]
    db = sqlite3.connect(nodes.homes[i] / "store.sqlite")
    marks = ", ".join("?" * len(shares))
    inputs = db.execute(
        f"SELECT count(*) FROM shares WHERE words IS NOT NULL AND share_id IN ({marks})", shares
    ).fetchone()[0]
    states = [row[0] for row in db.execute("SELECT state FROM jobs WHERE scope = ?", [asked.scope])]
    models = [
        row[0]
        for row in db.execute("SELECT committed FROM models WHERE job_id = ?", [job["job_id"]])
    ]
    db.close()
    return inputs, states, models


@pytest.mark.parametrize(
    ("n", "engine", "dead", "phase"), list(cases()), ids=lambda part: str(part).replace(" ", "")
)
def test_nothing_is_lost_or_half_stored_whoever_dies_when(sets, n, engine, dead, phase):
    nodes = sets(n)
    everyone = list(range(n))
    alive = [i for i in everyone if i not in dead]
    asked = Round(nodes, engine=engine, custodians=4, rows=8).put()
    job = asked.job(**group(engine, nodes, everyone))
    answers, pending = None, []
    if phase == "in":  # those who will die have not been asked: the others wait for their part
        pending = [nodes.begin(job, i) for i in alive]
        for i in alive:
            nodes.wait_for_state(i, job["job_id"], "running")
    elif phase != "before":
        answers = nodes.ask(job)
        assert [a.status_code for a in answers] == [200] * n, [a.text for a in answers]
        if phase == "after":
            assert nodes.commit(answers, alive[:1])[0].status_code == 200
    for i in dead:
        nodes.kill(i)
    if phase == "before":
        pending = [nodes.begin(job, i) for i in alive]
    for i, answer in zip(alive, pending):  # long before the job's time is over
        said = answer.result().json()
        assert said["code"] in ("peer_lost", "peer_refused") and said["retryable"], said
        assert kept(nodes, i, asked, job) == (5, [], [])
    back = False
    if phase != "after":  # the coordinator has not heard all: those who live make it again
        again = group(engine, nodes, alive)
        if again is None:
            nodes.start(*dead)
            back, again = True, group(engine, nodes, everyone)
        job |= {"attempt": 2, **again}
        answers = nodes.ask(job)
        assert {a.status_code for a in answers} == {200}, [a.text for a in answers]
    members = everyone if back else alive
    committed = nodes.commit(answers, members)
    assert {c.status_code for c in committed} == {200}, [c.text for c in committed]
    model = committed[0].json()["model"]
    if len(members) >= NEEDED[engine]:
        assert abs(ask(nodes, model, engine, members) - LOGIT) < 0.3
    if not back:
        nodes.start(*dead)
        for i in dead:
            shown = nodes.show(i, job, answers).json()
            assert shown["committed"] and shown["model"] == model, shown
    # all have the model, of Shamir shares those who made it; nobody has anything else of the round
    keepers = everyone
    if engine in SHAMIR and phase != "after" and not back:
        keepers = [i for i in everyone if kept(nodes, i, asked, job)[2]]
        assert set(alive) <= set(keepers)
    for i in everyone:
        assert kept(nodes, i, asked, job) == (0, ["done"], [1] * (i in keepers))
    # those who were dead answer too, where they have it
    turned = [*(i for i in keepers if i not in dead), *(i for i in keepers if i in dead)]
    assert abs(ask(nodes, model, engine, turned) - LOGIT) < 0.3
