"""Phases 1 and 2: a company asks for a model, backers fund it, the sites apply and are admitted."""

from __future__ import annotations

import json
import time

from workers.client.api import ClientError, wait_for
from workers.demo import agents, request, trading
from workers.demo.cast import (
    BACKERS,
    COMPANY,
    OPERATORS,
    OTHER_COMPANY,
    VISITOR,
    VOTERS,
    Role,
)
from workers.demo.screen import money
from workers.demo.story import STAKE_MICRO, TOKEN, WAIT_S, Story, brief

BACKER_USDC = (6_000 * TOKEN, 4_000 * TOKEN, 3_010 * TOKEN)
PLEDGES = (5_000 * TOKEN, 4_000 * TOKEN, 3_000 * TOKEN)
OPEN_PLEDGE = 900 * TOKEN


def request_phase(story: Story) -> None:
    story.screen.phase(1, "rfm", "A company asks for a model")
    # Sign-ups hash passwords, which takes its time; those who act first come first.
    began = time.monotonic()
    story.cast.sign_up([*VOTERS, COMPANY, OTHER_COMPANY])
    for voter in VOTERS:
        story.cast.faucet(voter.key, "FLAI", 2 * STAKE_MICRO)
        story.stake(voter.key)
    vote_s = story.state.step("vote_s", lambda: request.vote_s(time.monotonic() - began))
    company = story.cast.api(COMPANY.key)
    asked = request.main_request(
        story.sites,
        custodians=len(story.custodians),
        validators=len(story.validators),
        network=story.network,
        vote_s=vote_s,
    )
    main = story.state.step("rfm", lambda: brief(company.post("rfms/", asked)))
    other = story.state.step(
        "rfm open",
        lambda: brief(
            story.cast.api(OTHER_COMPANY.key).post("rfms/", request.open_crowdfund(vote_s))
        ),
    )
    price = money(request.PRICE_MICRO)
    gate = request.GATE_MILLI / 1000
    per = " and in each region" if story.sites["strata"] else ""
    story.screen.done(
        f"{COMPANY.name} asks for a classifier of {len(story.sites['columns'])} features:"
    )
    metric = "accuracy" if story.network else "AUC"
    story.screen.note(f"{metric} ≥ {gate:.2f} overall{per}, ${price} a query")
    for who, item in ((COMPANY.key, main), (OTHER_COMPANY.key, other)):
        slug = item["slug"]
        proposal_id = story.state.step(
            f"submitted {slug}", lambda w=who, s=slug: story.submit(w, s)
        )
        voters = [voter.key for voter in VOTERS]
        story.state.step(
            f"voted {slug}", lambda p=proposal_id, v=voters: story.vote(p, v, "for") or True
        )
    everyone = [
        *BACKERS,
        *OPERATORS,
        *(Role(s["slug"], s["name"], "organisation", s["role"]) for s in story.sites["sites"]),
        *(Role(b["slug"], b["name"], "organisation", "buyer") for b in story.sites["buyers"]),
        VISITOR,
    ]
    story.cast.sign_up(everyone)
    for item in (main, other):
        result = story.decided(story.state.get(f"submitted {item['slug']}"))
        if result["state"] != "executed":
            raise ClientError(f"The SuperDAO did not approve {item['slug']}: {result['state']}.")
    tally = result["tally"]
    story.screen.done(
        f"The SuperDAO approves: {len(VOTERS)} stakers, "
        f"{money(int(tally['for']), 0)} of {money(int(tally['total']), 0)} FLAI in favour"
    )


def onboarding_phase(story: Story) -> None:
    story.screen.phase(2, "funding", "Backers fund it, hospitals and validators apply")
    _operators(story)
    for backer, usdc in zip(BACKERS, BACKER_USDC, strict=True):
        story.cast.faucet(backer.key, "USDC", usdc)
    story.remember_money("before funding", [backer.key for backer in BACKERS])
    for backer, amount in list(zip(BACKERS, PLEDGES, strict=True))[:-1]:
        _pledge(story, backer, story.rfm, amount)

    def attest(key: str) -> None:
        role = "custodian" if key in story.custodians else "validator"
        story.agent(key, role, "attest", "--rfm", story.rfm)

    agents.each(story.members, attest, lambda key: story.screen.done(f"{story.name(key)} attested"))
    _peers(story)
    _pledge(story, BACKERS[-1], story.rfm, PLEDGES[-1])
    subdao = wait_for(
        lambda: story.public.get(f"rfms/{story.rfm}/").get("subdao"),
        deadline_s=WAIT_S,
        what="the award",
    )
    story.state.step("subdao", lambda: subdao)
    dao = story.public.get(f"subdaos/{subdao}/")
    story.screen.done(
        f"{money(request.TARGET_MICRO, 0)} USDC reached: the SubDAO “{dao['slug']}” has a "
        f"treasury of {money(int(dao['treasury_micro']), 0)} USDC,"
    )
    story.screen.note(
        f"{money(int(dao['sdt']['supply_micro']), 0)} {dao['sdt']['code']} and "
        f"{len(dao['sbgt'])} holders of SBGT, made in one transaction"
    )
    _pledge_open(story)
    whitelist = story.proposal(subdao, "participants.whitelist")
    story.state.step(
        "whitelist voted", lambda: story.vote(whitelist["id"], story.members, "for") or True
    )
    trading.market(story, dao["sdt"]["code"], PLEDGES[0])
    if story.decided(whitelist["id"])["state"] != "executed":
        raise ClientError("The whitelist did not pass.")
    story.screen.done(f"SBGT holders admit all {len(story.members)} applicants")


def _operators(story: Story) -> None:
    """Operators show which nodes are theirs, and publish the fingerprints that agents pin."""
    if story.nodes is None:
        story.screen.note("No node homes here: agents pin the fingerprints they see first.")
        return
    homes = sorted(path.parent for path in story.nodes.glob("*/descriptor.json"))
    fingerprints, claimed = [], 0
    for operator, home in zip(OPERATORS, homes, strict=False):
        entry = story.cast.entry(operator.key)
        arguments = ["--home", str(home), "claim", "--party", entry["pid"]]
        said = json.loads(agents.run("workers.node", arguments, log=story.log_path(operator.key)))
        fingerprints.append(said["fingerprint"])
        claimed += story.state.step(
            f"claimed {operator.key}", lambda k=operator.key, s=said: _claim(story, k, s)
        )
    for key in [*story.members, *story.buyers, VISITOR.key]:
        story.cast.home(key).pin_nodes(fingerprints)
    story.screen.done(
        f"{claimed} operators claim their nodes; every agent pins {len(fingerprints)} fingerprints"
    )


def _peers(story: Story) -> None:
    """Every site pins the others' keys, told by each of them and not by the server."""
    told = sorted(story.cast.home(key).identity_hex() for key in story.members)
    for key in story.members:
        story.cast.home(key).pin_peers(told)
    story.screen.done(f"Each site pins the keys of all {len(told)}, exchanged among themselves")


def _claim(story: Story, key: str, said: dict[str, str]) -> int:
    """1 if the node is this operator's now; 0 if an earlier story gave it to another one."""
    try:
        body = {"signature": said["signature"]}
        story.cast.api(key).post(f"nodes/{said['fingerprint']}/claim/", body)
    except ClientError as error:
        if error.status != 409:
            raise
        return 0
    return 1


def _pledge(story: Story, backer: Role, slug: str, amount: int) -> None:
    name = f"pledge {backer.key} {slug}"
    story.state.step(
        name,
        lambda: (
            story.cast.api(backer.key).post(
                f"rfms/{slug}/pledges/",
                {"amount_micro": str(amount)},
                idempotency_key=story.state.key(name),
            )
            and True
        ),
    )
    if slug == story.rfm:
        story.screen.done(f"{backer.name} pledges {money(amount, 0)} USDC")


def _pledge_open(story: Story) -> None:
    _pledge(story, BACKERS[0], story.state.get("rfm open")["slug"], OPEN_PLEDGE)
