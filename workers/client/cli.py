"""The command line: `python3 -m workers.client COMMAND …`. Exit codes: 0 done, 1 not, 2 usage."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workers.client.api import Api, ClientError
from workers.client.home import Home, read_pins

DAYS_MAX = 90  # that a consent lasts
SHOWN = ("what", "round", "rfm", "roster", "size_bytes", "why")

EPILOG = """\
examples:
  a hospital takes part in a request, from its attestation to its first update:
    python3 -m workers.client connect --home ./alder --url https://flai.example --api-key-file key
    python3 -m workers.client custodian --home ./alder run --rfm response-to-immunotherapy
  a buyer asks one private question:
    python3 -m workers.client predict --home ./me response-to-immunotherapy rows.csv
  anyone checks the whole log without trusting the server:
    python3 -m workers.client verify --url https://flai.example --state ./heads.json

A home is a directory of yours with keys, settings (agent.toml) and a journal of what left it.
"""


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="python3 -m workers.client",
        description="FLAI at your side: data, keys and answers stay with you.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = root.add_subparsers(dest="command", metavar="COMMAND")

    connect = commands.add_parser("connect", help="tell a home where the server is")
    _home(connect)
    connect.add_argument("--url", required=True, help="address of the server")
    connect.add_argument(
        "--api-key-file", type=Path, required=True, help="file with your API key (- for stdin)"
    )
    connect.set_defaults(run=_connect)

    for role, text in (
        ("custodian", "a hospital's agent: attest, share sums, train, share the update"),
        ("validator", "a validator's agent: attest, declare rows, share the holdout"),
    ):
        _agent(commands, role, text)

    predict = commands.add_parser("predict", help="buy a prediction that only you can read")
    _home(predict)
    predict.add_argument(
        "asked",
        nargs="*",
        metavar="LISTING ROWS",
        help="the listing's short name, and a CSV file with a header (or Parquet)",
    )
    predict.add_argument("--listing", help="the same as LISTING")
    source = predict.add_mutually_exclusive_group()
    source.add_argument("--row", type=Path, help="the same as ROWS")
    source.add_argument("--values", nargs="+", help="one row, in the model's order")
    predict.add_argument("--idempotency-key", help="the same key never pays twice")
    predict.add_argument(
        "--max-row-micro",
        type=int,
        help="the most that a row may cost, in micro-units (default: the listing's price)",
    )
    predict.add_argument(
        "--verified", action="store_true", help="demand four nodes that check each other"
    )
    predict.add_argument(
        "--threshold",
        type=int,
        help="how many nodes, at least, shall learn nothing by telling each other all (default: as "
        "many as the last time)",
    )
    predict.add_argument(
        "--accept-threshold",
        type=int,
        help="so many are enough from now on: where the members have voted for fewer",
    )
    predict.set_defaults(run=_predict)

    answers = commands.add_parser(
        "answers", help="open what you asked and paid before something broke off"
    )
    _home(answers)
    answers.set_defaults(run=_answers)

    claim = commands.add_parser("claim", help="be paid what epochs owe you, each part proved")
    _home(claim)
    claim.add_argument("--epoch", help="one epoch's id (default: all that owe you something)")
    claim.add_argument("--dry-run", action="store_true", help="prove and show, claim nothing")
    claim.set_defaults(run=_claim)

    verify = commands.add_parser("verify", help="check the log of a server and replay it")
    verify.add_argument("--url", required=True, help="address of the server")
    verify.add_argument("--state", type=Path, help="remembers key and last head between checks")
    verify.add_argument("--key", help="public key of the log, if you have it from elsewhere")
    verify.add_argument(
        "--nodes",
        type=Path,
        action="append",
        help="nodes.pin.json: a whole node set, as its operators publish it; one file for each set",
    )
    verify.add_argument(
        "--has",
        action="append",
        default=[],
        metavar="ID[,ID…]",
        help="also find the entry that names all of these: a payment or a query by its id, a vote "
        "as PROPOSAL,PID; or an entry by its hash",
    )
    verify.set_defaults(run=_verify)

    record = commands.add_parser(
        "record", help="check the record of a round, as a site gives it, against the log"
    )
    record.add_argument("file", type=Path, help="GET /api/v1/rounds/ID/record/, as a file")
    record.add_argument("--key", help="public key of the log, if you have it from elsewhere")
    record.set_defaults(run=_record)

    feed = commands.add_parser("feed", help="models, prices and metrics, signed by the log's key")
    feed.add_argument("--url", required=True, help="address of the server")
    feed.add_argument("--key", help="public key of the log, if you have it from elsewhere")
    feed.add_argument(
        "--state", type=Path, help="what `verify --state` has kept: key and last head"
    )
    feed.add_argument("--json", action="store_true", help="the checked models as JSON, one a line")
    feed.set_defaults(run=_feed)

    _wallet(commands)

    key = commands.add_parser("key", help="your public key, for the peers.pin.json of your peers")
    _home(key)
    key.set_defaults(run=_key)

    resharing = commands.add_parser(
        "resharing", help="let a model that you helped to make go over to the nodes that you pinned"
    )
    _home(resharing)
    resharing.add_argument("--model", required=True, help="the model's id")
    resharing.add_argument(
        "--engine", metavar="ENGINE", help="shamir_t1, shamir_t2 or shamir_t3: with that threshold"
    )
    resharing.add_argument(
        "--days", type=int, default=7, help="how long the nodes take your word (7 days)"
    )
    resharing.set_defaults(run=_resharing)

    show = commands.add_parser("journal", help="what left this home, and when")
    _home(show)
    show.set_defaults(run=_journal)
    return root


def _home(command: argparse.ArgumentParser) -> None:
    command.add_argument("--home", type=Path, required=True, help="your directory")


def _agent(commands: argparse._SubParsersAction, role: str, text: str) -> None:
    command = commands.add_parser(role, help=text)
    _home(command)
    steps = command.add_subparsers(dest="step", metavar="STEP", required=True)
    for name, needs_rfm, help_text in (
        ("attest", True, "check the file against the request and file the signed result"),
        ("normalise", False, "share column sums" if role == "custodian" else "declare the rows"),
        ("train", False, "train and share" if role == "custodian" else "share the holdout"),
        ("run", True, "all steps, waiting where others must act"),
    ):
        step = steps.add_parser(name, help=help_text)
        if needs_rfm:
            step.add_argument("--rfm", required=True, help="the request's short name")
        else:
            step.add_argument("--subdao", required=True, help="the SubDAO's short name")
            step.add_argument("--round", help="the round's id (default: the current one)")
        if name != "attest":
            step.add_argument(
                "--accept-roster",
                action="store_true",
                help="take part although the roster has lost members since the last time, "
                "or an unknown normalisation is kept",
            )
            step.add_argument(
                "--accept-schema",
                action="store_true",
                help="from now on this SubDAO's columns may be what it says now, not what you "
                "attested to: where its members have voted for others",
            )
            step.add_argument(
                "--accept-threshold",
                type=int,
                help="from now on it is enough for this SubDAO that so many nodes learn nothing by "
                "telling each other all: where its members have voted for fewer than before",
            )
        if name != "attest" and role == "custodian":
            step.add_argument(
                "--share-rows",
                action="store_true",
                help="your organisation consents that rows go to the nodes in shares",
            )
            step.add_argument(
                "--keep-rows",
                action="store_true",
                help="and that the nodes keep them for the rounds of this epoch",
            )
            step.add_argument(
                "--share-sums",
                action="store_true",
                help="your organisation consents that sums of its columns' products do "
                "(linear regression)",
            )
        if name in ("normalise", "train"):
            step.add_argument(
                "--dry-run",
                action="store_true",
                help="check everything and show what would leave this site; send nothing",
            )
        step.set_defaults(run=_step, role=role)
    step = steps.add_parser(
        "withdraw",
        help="take back what was sent to a round and is not computed yet, and what the nodes keep "
        "of it for further rounds",
    )
    step.add_argument("--subdao", required=True, help="the SubDAO's short name")
    step.add_argument(
        "--round", help="the round's id (default: the open one, and whatever the nodes keep)"
    )
    step.set_defaults(run=_step, role=role)
    serve = steps.add_parser(
        "serve", help="a service: take part in every round that agent.toml allows"
    )
    serve.add_argument("--once", action="store_true", help="do what is due now, then stop")
    serve.add_argument(
        "--dry-run",
        action="store_true",
        help="show once what would leave this site now, and send nothing",
    )
    serve.set_defaults(run=_serve, role=role)


def _wallet(commands: argparse._SubParsersAction) -> None:
    wallet = commands.add_parser("wallet", help="a wallet's keys, and what needs their signature")
    steps = wallet.add_subparsers(dest="step", metavar="STEP", required=True)

    def step(name: str, text: str) -> argparse.ArgumentParser:
        made = steps.add_parser(name, help=text)
        _home(made)
        made.set_defaults(run=_wallet_step)
        return made

    step("show", "the keys that are bound, and whether this home has them")
    bind = step("bind", "make the wallet key of this home and bind it; from then on it must sign")
    bind.add_argument("--recovery", action="store_true", help="bind recovery.key instead")
    step("rotate", "replace the wallet key, signed by the old or the recovery key")
    revoke = step("revoke", "revoke the wallet key")
    revoke.add_argument("--recovery", action="store_true", help="revoke the recovery key instead")
    send = step("send", "pay another party")
    send.add_argument("--to", required=True, help="the payee's short name")
    send.add_argument("--memo", default="", help="a note; it is neither signed nor in the log")
    for name, text in (("stake", "stake FLAI or an SDT"), ("unstake", "take staked tokens back")):
        step(name, text)
    for name in ("send", "stake", "unstake"):
        steps.choices[name].add_argument("--asset", required=True, help="FLAI, USDC, SDT-…")
        steps.choices[name].add_argument("--amount", required=True, help="tokens, like 12.50")
        steps.choices[name].add_argument("--idempotency-key", help="the same one never pays twice")
    plan = step("plan", "a listing's plan: rows paid ahead; begin, change or cancel it")
    plan.add_argument("--listing", required=True)
    plan.add_argument("--to", help="the plan's name (default: show what would cost what)")
    plan.add_argument("--cancel", action="store_true", help="have no plan any more")
    plan.add_argument("--yes", action="store_true", help="do it, and don't only show it")
    plan.add_argument(
        "--renew",
        action=argparse.BooleanOptionalAction,
        help="let it renew itself at its end, for no more than it costs now; or no more",
    )
    mandate = step("mandate", "let predictions be paid up to a limit, signed once")
    mandate.add_argument("--limit", required=True, help="USDC in all, like 25")
    mandate.add_argument("--days", type=int, default=30, help="how long (default: 30)")
    mandate.add_argument("--listing", default="*", help="one listing (default: all)")
    mandate.add_argument("--api-key", default="", help="prefix of the key (default: the browser)")
    credentials = step("credentials", "those that you hold, or have issued")
    credentials.add_argument("--issued", action="store_true", help="those that you have issued")
    issue = step("issue", "issue a credential to a party, signed by your wallet key")
    issue.add_argument("--to", required=True, help="the party's short name")
    issue.add_argument("--credential", required=True, help="its kind, like accredited-hospital")
    issue.add_argument("--days", type=int, default=365, help="how long it holds (default: 365)")
    issue.add_argument("--key", default="", help="the party's wallet key, if it told you")
    lend = step("lend", "let another home's key ask by a credential of yours; prints what lets it")
    lend.add_argument("--to", required=True, help="that home's public key, as `key` prints it")
    lend.add_argument("--credential", default="", help="its kind (default: the newest in force)")
    lend.add_argument("--days", type=int, default=30, help="how long: 1 to 90 (default: 30)")
    back = step("take-back", "revoke a credential that you have issued")
    back.add_argument("--id", required=True, help="the credential's id")
    vote = step("vote", "vote on a proposal")
    vote.add_argument("--proposal", required=True, help="the proposal's id")
    vote.add_argument("--support", required=True, choices=["for", "against", "abstain"])
    propose = step("propose", "make a proposal")
    propose.add_argument("--dao", required=True, help="the SubDAO's short name")
    propose.add_argument("--kind", required=True, help="what is proposed: subdaos.set_price, …")
    propose.add_argument("--payload", required=True, help="JSON, as the action writes it")
    propose.add_argument("--title", required=True)


def _wallet_step(options: argparse.Namespace) -> int:
    import json

    from workers.client.wallet import RECOVERY, WALLET, Wallet

    wallet = Wallet(Home(options.home))
    purpose = RECOVERY if getattr(options, "recovery", False) else WALLET
    if options.step in ("stake", "unstake", "send"):
        moved = {"asset": options.asset, "amount_micro": _micro(options.amount)}
        moved["key"] = options.idempotency_key
        if options.step == "send":
            made = wallet.send(to=options.to, memo=options.memo, **moved)
        else:
            made = wallet.stake(back=options.step == "unstake", **moved)
        print(f"Done: transfer {made['id']}.")
    elif options.step == "plan":
        _plan(wallet, options)
    elif options.step == "mandate":
        made = wallet.mandate(
            limit_micro=_micro(options.limit),
            days=options.days,
            listing=options.listing,
            api_key=options.api_key,
        )
        print(f"Predictions may take {options.limit} USDC until {made['until'][:10]}.")
    elif options.step == "credentials":
        for row in wallet.credentials(issued=options.issued):
            other = row["subject" if options.issued else "issuer"]["name"]
            print(f"{row['id']}  {row['credential']}  {other}  {row['state']}  {row['until'][:10]}")
    elif options.step == "issue":
        made = wallet.issue(
            to=options.to,
            credential=options.credential,
            days=options.days,
            subject_key=options.key,
        )
        print(f"Issued: {made['id']}, until {made['until'][:10]}.")
    elif options.step == "lend":
        made = wallet.lend(to=options.to, days=options.days, credential=options.credential)
        print(json.dumps(made, indent=1))
    elif options.step == "take-back":
        wallet.take_back(options.id)
        print("Revoked.")
    elif options.step == "vote":
        wallet.vote(proposal=options.proposal, support=options.support)
        print(f"Your vote “{options.support}” is counted.")
    elif options.step == "propose":
        made = wallet.propose(
            dao=options.dao,
            kind=options.kind,
            payload=_object(options.payload),
            title=options.title,
        )
        print(f"Proposed: {made['id']}.")
    else:
        if options.step != "show":
            getattr(wallet, options.step)(*([] if options.step == "rotate" else [purpose]))
        _print_keys(wallet)
    return 0


def _print_keys(wallet: Any) -> None:
    from apps.protocol.wire import public_hex

    state = wallet.show()
    for purpose, key in state["keys"].items():
        here = key in map(public_hex, wallet.home.wallet_keys(purpose))
        print(f"{purpose:9} {key}  {'in this home' if here else 'not in this home'}")
    needed = "needs" if state["keyed"] else "needs no"
    print(f"What this party pays, stakes, votes and proposes {needed} wallet key's signature.")


def _micro(text: str) -> int:
    """Tokens as micro-units, exactly. Raises: ClientError."""
    whole, _, part = text.partition(".")
    if not (whole.isascii() and whole.isdigit() and len(part) <= 6):
        raise ClientError(f"{text} is no amount: write tokens, like 12.50.")
    if part and not (part.isascii() and part.isdigit()):
        raise ClientError(f"{text} is no amount: write tokens, like 12.50.")
    return int(whole) * 1_000_000 + int(part.ljust(6, "0"))


def _object(text: str) -> dict[str, Any]:
    import json

    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ClientError("The payload must be a JSON object.")
    return found


def _connect(options: argparse.Namespace) -> int:
    if str(options.api_key_file) == "-":
        key = sys.stdin.readline().strip()
    else:
        try:
            key = options.api_key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise ClientError(f"There is no API key in {options.api_key_file}.") from None
    if not key:
        raise ClientError("The API key is empty. Create one under Account and pass it on.")
    party = Api(options.url, key).get("me/")
    Home(options.home).connect(url=options.url, api_key=key)
    party = party.get("party", party)
    print(f"{options.home} now speaks to {options.url} for {party.get('name', party['pid'])}.")
    return 0


def _step(options: argparse.Namespace) -> int:
    from workers.client.agent import Agent

    accept = getattr(options, "accept_roster", False)
    about = getattr(options, "subdao", None) or options.rfm
    agent = Agent(
        Home(options.home).for_subdao(about),
        options.role,
        say=_say,
        accept_roster=accept,
        accept_schema=getattr(options, "accept_schema", False),
        accept_threshold=getattr(options, "accept_threshold", None),
        dry_run=getattr(options, "dry_run", False),
        share_rows=getattr(options, "share_rows", False),
        keep_rows=getattr(options, "keep_rows", False),
        share_sums=getattr(options, "share_sums", False),
    )
    if options.step == "attest":
        agent.attest(options.rfm)
    elif options.step == "normalise":
        agent.normalise(subdao=options.subdao, round_id=options.round)
    elif options.step == "withdraw":
        agent.withdraw(subdao=options.subdao, round_id=options.round)
    elif options.step == "train":
        agent.train(subdao=options.subdao, round_id=options.round)
    else:
        agent.run(rfm=options.rfm)
    return 0


def _serve(options: argparse.Namespace) -> int:
    from workers.client.service import Service

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    service = Service(Home(options.home), options.role, say=_say, dry_run=options.dry_run)
    service.run(once=options.once or options.dry_run)
    return 0


def _predict(options: argparse.Namespace) -> int:
    from workers.client.buyer import Buyer, rows_from_csv
    from workers.client.tables import Parts, predict_parts

    asked = list(options.asked)
    listing = options.listing or (asked.pop(0) if asked else None)
    file = options.row or (Path(asked.pop(0)) if asked else None)
    if asked or not listing or (file is None) == (options.values is None):
        print("Name one listing and one file of rows, or --values.", file=sys.stderr)
        return 2
    buyer = Buyer(
        Home(options.home),
        listing,
        max_row_micro=options.max_row_micro,
        verified=options.verified,
        threshold=options.threshold,
        accept_threshold=options.accept_threshold,
    )
    rows = rows_from_csv(file, buyer.features) if file else [options.values]
    parts = Parts(buyer, rows, key=options.idempotency_key)
    if len(parts) > 1:
        dearest = len(rows) * buyer.max_row_micro / 1_000_000
        print(
            f"{len(rows)} rows in {len(parts)} queries, {dearest:.2f} USDC at most. If this breaks "
            f"off, go on with --idempotency-key {parts.key}",
            file=sys.stderr,
        )
    answers = predict_parts(parts)
    for text in (text for part in answers for text in part.texts):
        print(text)
    paid = f"{sum(part.price_micro for part in answers) / 1_000_000:.2f}"
    ids = ", ".join(part.query_id for part in answers)
    print(f"Paid {paid} USDC, query {ids}. Only you have read this.", file=sys.stderr)
    return 0


def _answers(options: argparse.Namespace) -> int:
    from workers.client.reopening import reopened

    for found in reopened(Home(options.home)):
        if found.answer is None:
            print(f"{found.listing}, key {found.key}: {found.text}", file=sys.stderr)
            continue
        paid = f"{found.answer.price_micro / 1_000_000:.2f} USDC, query {found.answer.query_id}"
        print(f"{found.listing}, paid {paid}:", file=sys.stderr)
        for text in found.answer.texts:
            print(text)
        sys.stdout.flush()  # it is forgotten then
    return 0


def _plan(wallet: Any, options: argparse.Namespace) -> None:
    if options.renew is not None:
        made = wallet.plan_renew(listing=options.listing, on=options.renew)
        most = made["renewal"] and int(made["renewal"]["max_micro"]) / 1e6
        how = f"renews itself, for {most:,.6f} USDC at most" if made["renewal"] else "ends"
        print(f"{made['plan']}: on {made['ends_at'][:10]} it {how}.")
        return
    if not options.to and not options.cancel:
        for plan in wallet.api.get(f"listings/{options.listing}/")["plans"]:
            price, row = (int(plan[name]) / 1e6 for name in ("price_micro", "row_micro"))
            print(
                f"{plan['name']:20}  {plan['rows']:>10,} rows for {plan['days']} days: "
                f"{price:,.6f} USDC, {row:.6f} a row"
            )
        return
    seen = wallet.plan_preview(listing=options.listing, plan=options.to or "")
    due, back, lapsed = (int(seen[f"{name}_micro"]) for name in ("due", "refund", "lapsed"))
    print(
        f"{seen['plan'] or 'No plan'}: {seen['rows']:,} rows. You pay {due / 1e6:,.6f} USDC and "
        f"get {back / 1e6:,.6f} back; {lapsed / 1e6:,.6f} of what you paid lapses."
    )
    if not options.yes:
        print("Nothing has moved. Do it with --yes.")
        return
    made = wallet.plan_set(seen)
    print(
        "Cancelled." if made["ended_at"] else f"Done: {made['plan']}, until {made['ends_at'][:10]}."
    )


def _claim(options: argparse.Namespace) -> int:
    from workers.client import claiming

    api = Home(options.home).api()
    epochs = [options.epoch] if options.epoch else list(claiming.waiting(api))
    done = [
        part
        for epoch in epochs
        for part in (claiming.parts if options.dry_run else claiming.claim)(api, epoch)
        if part.waiting
    ]
    for part in done:
        owed = part.owed
        print(
            f"{owed.amount_micro / 1_000_000:,.6f} {owed.asset} as {owed.role}, epoch {part.epoch}"
        )
    word = "waits to be claimed" if options.dry_run else "was paid to you"
    print(f"All of it is proved by the log and {word}." if done else "Nothing waits for you.")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from workers.client.verify import verify_server

    sets = [read_pins(path, "fingerprints") for path in options.nodes or ()] or None
    report = verify_server(
        options.url, state=options.state, key=options.key, sets=sets, has=options.has
    )
    for check in report.checks:
        print(f"{'✓' if check.ok else '✗'} {check.text}")
    print("Everything checks." if report.ok else "Something does not check: see ✗ above.")
    return 0 if report.ok else 1


def _record(options: argparse.Namespace) -> int:
    import json

    from workers.client.record import check_record, unchecked

    try:
        record = json.loads(options.file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"✗ {options.file} can't be read: {error}")
        return 1
    wrong = check_record(record, options.key)
    for text in wrong:
        print(f"✗ {text}")
    if not wrong:
        whose = (
            "of the key that you gave" if options.key else f"with the key {record['log']['key']}"
        )
        print(f"✓ The record is what the log {whose} and the nodes' receipts say.")
        print("Of these it is the site's word, in neither of them:")
        for each in unchecked(record):
            print(f"  · {each.text}")
    return 1 if wrong else 0


def _feed(options: argparse.Namespace) -> int:
    import json

    from workers.client.feed import read_feed

    feed = read_feed(Api(options.url), key=options.key, state=options.state)
    for model in feed.models:
        if options.json:
            print(json.dumps(model, sort_keys=True, ensure_ascii=False))
            continue
        metrics = ", ".join(
            f"{name} {metric['milli'] / 1000:.3f}"
            for name, metric in model["metrics"].items()
            if metric["milli"] is not None
        )
        price = f"{int(model['price_micro']) / 1e6:.6f} {model['currency']}"
        access = model.get("access")  # sites before this was told leave it out
        asks = f"  for holders of {access['credential']}" if access else ""
        print(f"{model['slug']:36}  version {model['version']:<3}  {price}  {metrics}{asks}")
    known = "the key that you know" if feed.pinned else "a key that is seen for the first time"
    print(
        f"✓ {len(feed.models)} models, signed by {feed.key[:12]}… ({known}), over a log of "
        f"{feed.head.size} entries.",
        file=sys.stderr,
    )
    return 0


def _key(options: argparse.Namespace) -> int:
    print(Home(options.home).identity_hex())
    return 0


def _resharing(options: argparse.Namespace) -> int:
    import json

    from apps.protocol import refreshes, tickets, wire
    from apps.protocol.jobs import fingerprint
    from workers.client.nodes import trusted_nodes

    home = Home(options.home)
    if not wire.is_hex(options.model, 32):
        raise ClientError("A model's id is 64 hex digits.")
    if home.pinned_nodes() is None:
        raise ClientError("Pin the nodes that the model is to go to in nodes.pin.json first.")
    nodes = trusted_nodes(home, [row["descriptor"] for row in home.api().get("nodes/")["results"]])
    prints, engine = [fingerprint(node) for node in nodes], options.engine
    if engine is not None:
        if engine not in tickets.SHAMIR:
            raise ClientError("Only Shamir shares have a threshold: " + ", ".join(tickets.SHAMIR))
        try:
            tickets.check_engine(engine, len(prints))
        except tickets.TicketError as error:
            raise ClientError(error.text) from None
    if not 0 < options.days <= DAYS_MAX:
        raise ClientError(f"A consent lasts 1 to {DAYS_MAX} days.")
    end = int(time.time()) + 86_400 * options.days
    said = refreshes.consent_of(model=options.model, nodes=prints, expires_at=end, engine=engine)
    signature = wire.sign(home.identity(), refreshes.CONSENT_DOMAIN, said)
    named = {"expires_at": end} | ({} if engine is None else {"engine": engine})
    home.journal.write("resharing_consented", model=options.model, nodes=prints, **named)
    print(json.dumps({"key": home.identity_hex(), "signature": signature, "expires_at": end}))
    return 0


def _journal(options: argparse.Namespace) -> int:
    import datetime

    for entry in Home(options.home).journal:
        at = datetime.datetime.fromtimestamp(entry["at"], datetime.UTC)
        facts = {k: v for k, v in entry.items() if k in SHOWN}
        text = ", ".join(f"{name} {value}" for name, value in facts.items())
        print(f"{at:%Y-%m-%d %H:%M:%S} UTC  {entry['event']:15} {text}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    root = parser()
    options = root.parse_args(argv)
    run: Callable[[argparse.Namespace], int] | None = getattr(options, "run", None)
    if run is None:
        root.print_help()
        return 2
    try:
        return run(options)
    except ClientError as error:
        print(f"Not done: {error.text}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Not done: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Run the same command again to go on.", file=sys.stderr)
        return 130
