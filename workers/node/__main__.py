"""python -m workers.node --home DIR COMMAND …

init      make keys and descriptor (idempotent); prints the fingerprint
claim     prints {"fingerprint", "signature"}: proves to the platform which party runs this node
answered  prints how many rows each model was asked about, by UTC day, one JSON line each
succession --index I --new FINGERPRINT
          prints this node's signed word that the node of that fingerprint stands in the place of
          node I, which lost its keys or is to change them
admit FILE  writes a successor's descriptor into peers.json, if the old key or enough others signed
forget-log  the node cosigns another log from then on, or the same one from another beginning:
          for a platform whose database was restored, once all operators have agreed to it
recover   fills the empty store of a stopped node from the others that run, for whom it waits
          10 s or --wait S; one JSON line
(none)    run: one JSON line {"ready": true, …} on stdout once it listens; with --metrics PORT also
          counts and times for Prometheus, on 127.0.0.1 alone

Exit 3 with one line on stderr when something is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workers.node.errors import StartError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.node", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--home", type=Path, required=True, help="the node's directory")
    parser.add_argument(
        "--metrics", type=_port, metavar="PORT", help="for Prometheus, on 127.0.0.1"
    )
    commands = parser.add_subparsers(dest="command")
    init = commands.add_parser("init", help="make keys and descriptor")
    init.add_argument("--index", type=int, required=True)
    init.add_argument("--name", required=True)
    init.add_argument("--control", required=True, metavar="HOST:PORT")
    init.add_argument("--mesh", required=True, metavar="HOST:PORT")
    init.add_argument(
        "--succeeds", type=Path, nargs="+", metavar="FILE", help="what others said of a lost node"
    )
    succession = commands.add_parser("succession", help="say that another key takes a node's place")
    succession.add_argument("--index", type=int, required=True)
    succession.add_argument("--new", required=True, metavar="FINGERPRINT")
    admit = commands.add_parser("admit", help="take a successor's descriptor into peers.json")
    admit.add_argument("descriptor", type=Path)
    claim = commands.add_parser("claim", help="prove which party runs this node")
    claim.add_argument("--party", required=True, metavar="PID")
    commands.add_parser("answered", help="rows that each model was asked about, by day")
    commands.add_parser("forget-log", help="cosign from another beginning; operators agree on it")
    recover = commands.add_parser("recover", help="fill a lost store from the other nodes")
    recover.add_argument("--wait", type=float, default=10.0, metavar="S", help="for the others")
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise ValueError(text)
    return port


def init(home: Path, options: argparse.Namespace) -> dict[str, object]:
    from workers.node import home as homes

    node = homes.init(
        home,
        index=options.index,
        name=options.name,
        control=options.control,
        mesh=options.mesh,
    )
    if options.succeeds:
        files = options.succeeds
        node = homes.succeed(node, [homes.read_json(f, hint="an operator's word") for f in files])
    return {"fingerprint": node.fingerprint, "descriptor": str(home / "descriptor.json")}


def succession(home: Path, index: int, new: str) -> dict[str, Any]:
    """{"statement", "signatures", "earlier"}, by this node's key too. Of one that was admitted and
    needs more signatures it is what its descriptor carries."""
    from apps.protocol import successions, wire
    from workers.node import home as homes

    node = homes.load(home)
    peers = homes.load_peers(node)
    if not 0 <= index < len(peers.nodes) or not wire.is_hex(new, 32):
        raise StartError("there is no such node, or that is no fingerprint")
    earlier, signatures = list(peers.nodes[index].get("succeeds", [])), []
    statement = successions.statement_of(
        old=peers.fingerprints[index], new=new, nodes=peers.fingerprints
    )
    for signed in successions.carried([peers.nodes[index]]):
        if signed["statement"]["new"] == new:
            statement, signatures = signed["statement"], signed["signatures"]
            earlier = earlier[: earlier.index(signed)]
    if node.fingerprint not in statement["nodes"]:
        raise StartError("this node was in no set in which that place changed hands")
    mine = node.descriptor_body()
    signature = {
        "sign_key": mine["sign_key"],
        "hpke_key": mine["hpke_key"],
        "signature": wire.sign(node.sign_key, successions.SUCCESSION_DOMAIN, statement),
    }
    if signature not in signatures:
        signatures = [*signatures, signature]
    return {"statement": statement, "signatures": signatures, "earlier": earlier}


def admit(home: Path, descriptor: Path) -> dict[str, object]:
    from workers.node import home as homes

    content = homes.read_json(descriptor, hint="its operator publishes it")
    return {"admitted": True, "in_place_of": homes.admit(home, content)}


def claim(home: Path, party: str) -> dict[str, object]:
    from apps.protocol import jobs, wire
    from workers.node import home as homes

    node = homes.load(home)
    body = {"pid": party, "node": node.fingerprint}
    signature = wire.sign(node.sign_key, jobs.NODE_CLAIM_DOMAIN, body)
    return {"fingerprint": node.fingerprint, "signature": signature}


def answered(home: Path) -> list[dict[str, object]]:
    """To be compared with the log's settled queries: what exceeds them was asked unpaid."""
    from workers.node import home as homes
    from workers.node.storekey import open_store

    store = open_store(homes.load(home), alone=False)
    try:
        return [
            {"model": r.model, "day": f"{datetime.fromtimestamp(r.day * 86_400, UTC):%Y-%m-%d}"}
            | {"rows": r.rows}
            for r in store.answered()
        ]
    finally:
        store.close()


def forget_log(home: Path) -> dict[str, object]:
    """Prints what is forgotten. The daemon may run: it reads its last head from the store."""
    from workers.node import home as homes
    from workers.node.heads import META
    from workers.node.storekey import open_store

    store = open_store(homes.load(home), alone=False)
    try:
        return {"forgotten": store.forget_note(META)}
    finally:
        store.close()


def print_line(content: dict[str, object]) -> None:
    print(json.dumps(content), flush=True)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    home = options.home.absolute()
    try:
        if options.command == "init":
            print_line(init(home, options))
        elif options.command == "succession":
            print_line(succession(home, options.index, options.new))
        elif options.command == "admit":
            print_line(admit(home, options.descriptor))
        elif options.command == "claim":
            print_line(claim(home, options.party))
        elif options.command == "forget-log":
            print_line(forget_log(home))
        elif options.command == "answered":
            for line in answered(home):
                print_line(line)
        elif options.command == "recover":
            from workers.node import daemon

            models, left_out = daemon.recover(home, wait_s=options.wait)
            print_line({"recovered": True, "models": models, "left_out": left_out})
        else:
            from workers.node import daemon

            daemon.run(home, metrics_port=options.metrics)
    except StartError as error:
        print(f"node: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
