"""Starting a node: one clear line and exit 3 for everything that can be wrong."""

import copy
import json
import os
import socket
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from apps.protocol import identity, jobs, successions, wire
from tests.support.nodes import REPOSITORY, NodeSet, node_command
from workers.mpc import keys
from workers.node import __main__ as cli
from workers.node import daemon
from workers.node import home as homes
from workers.node.errors import StartError
from workers.node.home import Limits, load_limits


@pytest.fixture
def nodes(tmp_path):
    return NodeSet(tmp_path)


def start(home, *arguments, env=None):
    """The one line that a node ends with."""
    done = subprocess.run(
        node_command(home, *arguments),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **(env or {})},
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 3 and len(lines) == 1 and not done.stdout, done
    return lines[0]


def init(home, **changes):
    options = {"index": 0, "name": "n", "control": "127.0.0.1:5000", "mesh": "127.0.0.1:5001"}
    arguments = []
    for name, value in (options | changes).items():
        arguments += [f"--{name}", str(value)]
    return ["init", *arguments]


def test_init_keeps_the_keys_and_says_so_publicly(tmp_path):
    home = tmp_path / "n"

    def run(*arguments):
        command = node_command(home, *arguments)
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)
        return json.loads(done.stdout)

    first = run(*init(home))
    secret = [(home / f).read_text() for f in ("sign.key", "hpke.key", "store.key")]
    second = run(*init(home, control="127.0.0.1:6000"))
    assert first["fingerprint"] == second["fingerprint"]
    assert secret == [(home / f).read_text() for f in ("sign.key", "hpke.key", "store.key")]
    assert home.stat().st_mode & 0o777 == 0o700
    for file in ("sign.key", "hpke.key", "store.key", "config.json"):
        assert (home / file).stat().st_mode & 0o777 == 0o600
    text = (home / "descriptor.json").read_text()
    assert not any(s.strip() in text for s in secret)
    descriptor = json.loads(text)
    assert jobs.check_node(descriptor) == first["fingerprint"]
    assert descriptor["control"] == "127.0.0.1:6000"

    claim = run("claim", "--party", "ab" * 8)
    body = {"pid": "ab" * 8, "node": claim["fingerprint"]}
    wire.verify(descriptor["sign_key"], jobs.NODE_CLAIM_DOMAIN, body, claim["signature"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"control": "no host:5000"}, "HOST:PORT"),
        ({"control": "http://example.org:5000"}, "HOST:PORT"),
        ({"mesh": "::1:5000/x"}, "HOST:PORT"),
        ({"control": "127.0.0.1:99999"}, "range"),
        ({"control": "127.0.0.1"}, "HOST:PORT"),
        ({"index": 7}, "--index"),
        ({"name": ""}, "--name"),
    ],
)
def test_init_refuses_what_a_node_cannot_be(tmp_path, changes, text):
    options = {"index": 0, "name": "n", "control": "127.0.0.1:5000", "mesh": "127.0.0.1:5001"}
    with pytest.raises(StartError, match=text):
        homes.init(tmp_path / "n", **options | changes)


def test_the_command_says_what_init_refuses(tmp_path):
    assert "--index" in start(tmp_path / "n", *init(tmp_path, index=7))


def test_a_home_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in start(tmp_path / "file" / "n", *init(tmp_path))


@pytest.mark.parametrize("port", ["control", "mesh"])
def test_an_occupied_port_is_named(nodes, port):
    host, number = nodes.descriptors[0][port].split(":")
    with socket.socket() as taken:
        taken.bind((host, int(number)))
        taken.listen()
        line = start(nodes.homes[0])
    assert f"{port} port {host}:{number}" in line and "in use" in line


def test_an_occupied_metrics_port_is_named(nodes):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"metrics port {port}" in start(nodes.homes[0], "--metrics", str(port))


def test_missing_open_or_broken_key_files_are_named(nodes):
    home = nodes.homes[0]
    (home / "hpke.key").chmod(0o644)
    assert "hpke.key is open to others" in start(home)
    (home / "hpke.key").chmod(0o600)
    (home / "hpke.key").write_text("zz")
    assert "hpke.key does not hold 32 bytes" in start(home)
    (home / "hpke.key").unlink()
    assert "hpke.key is missing" in start(home)
    assert "run init" in start(home / "nowhere")


def spoil_self(peers):
    peers["nodes"][0] = copy.deepcopy(peers["nodes"][1]) | {"index": 0}


def swap_order(peers):
    peers["nodes"].reverse()


def change_name(peers):
    peers["nodes"][1]["name"] = "other"


def other_certificate(peers):
    """Well signed, but the certificate is another key's."""
    key, stranger = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    body = {k: v for k, v in peers["nodes"][1].items() if k != "signature"}
    body["sign_key"] = wire.public_hex(key)
    body["tls_cert"] = identity.certificate_pem(stranger, "n")
    peers["nodes"][1] = body | {"signature": wire.sign(key, jobs.NODE_DOMAIN, body)}


def stranger_at_my_place(peers):
    key = Ed25519PrivateKey.generate()
    body = {k: v for k, v in peers["nodes"][0].items() if k != "signature"}
    body["sign_key"] = wire.public_hex(key)
    body["tls_cert"] = identity.certificate_pem(key, "n")
    peers["nodes"][0] = body | {"signature": wire.sign(key, jobs.NODE_DOMAIN, body)}


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (spoil_self, "not signed by it"),
        (swap_order, "listed by index"),
        (change_name, "not signed by it"),
        (other_certificate, "belongs to another key"),
        (stranger_at_my_place, "does not contain this node"),
        (lambda p: p["nodes"].pop(), "must list 3 or 4 or 5 or 6 or 7 nodes"),
        (lambda p: p.pop("coordinator"), "coordinator"),
        (lambda p: p.pop("coordinator_cert"), "coordinator_cert"),
        (lambda p: p.update(coordinator_cert=p["nodes"][0]["tls_cert"]), "another key"),
        (lambda p: p["nodes"].__setitem__(1, {}), "lacks or adds fields"),
    ],
)
def test_wrong_peers_are_named(nodes, spoil, text):
    path = nodes.homes[0] / "peers.json"
    peers = json.loads(path.read_text())
    spoil(peers)
    path.write_text(json.dumps(peers))
    with pytest.raises(StartError, match=text):
        homes.load_peers(homes.load(nodes.homes[0]))


def test_missing_or_broken_peers_are_named(nodes):
    path = nodes.homes[0] / "peers.json"
    path.write_text("{")
    assert "cannot be read" in start(nodes.homes[0])
    path.unlink()
    assert "peers.json is missing" in start(nodes.homes[0])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "cannot be read"),
        ("[]", "may set only"),
        ('{"rows": 5}', "only: epoch_days, kept_days, kept_mb, price_micro_min, rows_per_epoch,"),
        ('{"verified_only": 1}', "verified_only must be true or false"),
        ('{"epoch_days": 0}', "epoch_days must be 1 or more"),
        ('{"rows_per_epoch": "5"}', "rows_per_epoch must be a whole number"),
        ('{"rows_per_query": -1}', "rows_per_query must be a whole number"),
        ('{"price_micro_min": true}', "price_micro_min must be a whole number"),
    ],
)
def test_wrong_limits_are_named(tmp_path, content, text):
    (tmp_path / "policy.json").write_text(content)
    with pytest.raises(StartError, match=text):
        load_limits(tmp_path)


def test_a_node_with_wrong_limits_does_not_start(nodes):
    (nodes.homes[0] / "policy.json").write_text("{")
    assert "cannot be read" in start(nodes.homes[0])


def test_what_the_operator_does_not_limit_is_as_usual(tmp_path):
    assert load_limits(tmp_path) == Limits()
    (tmp_path / "policy.json").write_text('{"rows_per_epoch": 7}')
    assert load_limits(tmp_path) == Limits(rows_per_epoch=7)


def test_the_store_key_may_come_from_the_environment_and_must_be_the_stores(nodes):
    nodes.start()
    nodes.stop()
    home = nodes.homes[0]
    assert "another store key" in start(home, env={"FLAI_STORE_KEY": "00" * 32})
    assert "FLAI_STORE_KEY" in start(home, env={"FLAI_STORE_KEY": "zz"})
    (home / "store.sqlite").write_bytes(b"no database at all" * 100)
    assert "share store" in start(home)


def test_two_daemons_do_not_share_a_home(nodes):
    nodes.start()
    try:
        assert "another node is running" in start(nodes.homes[0])
    finally:
        nodes.stop()


def test_a_node_stops_gracefully_with_a_job_inside(nodes):
    from tests.support.nodes import Round

    nodes.start()
    job = Round(nodes).put().job()
    pending = nodes.begin(job, 0)
    nodes.wait_for_state(0, job["job_id"], "running")
    nodes.processes[1].terminate()
    assert nodes.processes[1].wait(60) == 0
    assert pending.result().json()["code"] == "peer_lost"
    nodes.stop()
    assert '"message": "stopped"' in nodes.logs()


def test_a_node_imports_no_django_and_no_mpyc():
    code = (
        "import sys, workers.node.daemon, workers.node.control, workers.node.jobs,"
        "workers.mpc.engines.ring, workers.mpc.mesh, uvicorn;"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " ('django', 'rest_framework', 'celery', 'mpyc', 'sklearn', 'flai_site')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_key_files_are_not_made_again(tmp_path):
    secret = keys.create(tmp_path / "k")
    assert keys.load(tmp_path / "k") == secret


def weakly_succeeded(nodes, tmp_path, monkeypatch):
    """Node 4's successor, for which two of five have signed; an earlier release admitted it."""
    nodes.homes[4].rename(tmp_path / "lost")
    addresses = {"control": "127.0.0.1:5000", "mesh": "127.0.0.1:5001"}
    new = homes.init(nodes.homes[4], index=4, name="new", **addresses)
    said = [cli.succession(nodes.homes[i], 4, new.fingerprint) for i in (0, 1)]
    with monkeypatch.context() as earlier:
        earlier.setattr(successions, "others_least", lambda _: 2)
        descriptor = homes.succeed(new, said).descriptor()
        for home in nodes.homes[:4]:
            homes.admit(home, descriptor)
    return new, said, descriptor


def test_a_succession_for_which_more_must_sign_than_before_is_named_and_signed_on(
    tmp_path, monkeypatch, caplog
):
    """Two of five were enough for an earlier release."""
    nodes = NodeSet(tmp_path, n=5)
    before, first, last = list(nodes.fingerprints), nodes.homes[0], nodes.homes[4]
    new, said, descriptor = weakly_succeeded(nodes, tmp_path, monkeypatch)

    def starts(home):
        caplog.clear()
        peers = homes.load_peers(homes.load(home))
        daemon._say_what_does_not_count(peers)
        return peers.former, [(r.new, r.signatures_missing) for r in caplog.records]

    assert starts(first) == ((), [(new.fingerprint, 1)])
    again = cli.succession(first, 4, new.fingerprint)
    assert again["signatures"] == said[0]["signatures"] + said[1]["signatures"]
    for word in ([again], [again, again]):
        with pytest.raises(StartError, match="do not say"):
            homes.succeed(new, word)
    with pytest.raises(StartError, match="nobody who may"):
        homes.admit(first, descriptor)
    more = cli.succession(nodes.homes[2], 4, new.fingerprint)
    homes.admit(first, homes.succeed(homes.load(last), [more]).descriptor())
    assert starts(first) == ((before,), [])


def test_recovering_names_a_succession_that_does_not_count_and_one_that_followed_it_keeps_it(
    tmp_path, monkeypatch
):
    """The successor lost its keys too before enough had signed for it: who signs on later signs the
    first change of keys, and the last in its place tells what was signed for both."""
    nodes = NodeSet(tmp_path, n=5)
    before, first, last = list(nodes.fingerprints), nodes.homes[0], nodes.homes[4]
    second, *_ = weakly_succeeded(nodes, tmp_path, monkeypatch)
    last.rename(tmp_path / "lost too")
    third = homes.init(last, index=4, name="third", control="127.0.0.1:5000", mesh="127.0.0.1:5001")
    words = [cli.succession(nodes.homes[i], 4, third.fingerprint) for i in (0, 1, 2)]
    for home in nodes.homes[:4]:
        homes.admit(home, homes.succeed(third, words).descriptor())
    between = [*before[:4], second.fingerprint]
    assert homes.load_peers(homes.load(first)).former == (between,)
    done = subprocess.run(
        node_command(first, "recover", "--wait", "0"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3 and "a succession does not count" in done.stderr
    assert second.fingerprint in done.stderr

    more = cli.succession(nodes.homes[2], 4, second.fingerprint)
    with pytest.raises(StartError, match="do not say"):  # of no place that it is in
        homes.succeed(homes.load(nodes.homes[3]), [more])
    third = homes.succeed(homes.load(last), [more])
    homes.admit(first, third.descriptor())
    assert homes.load_peers(homes.load(first)).former == (between, before)
