"""The end of the story: numbers, tables, the oracle, and what to try next.

The oracle never touches a node's store. It takes each custodian's own update from that agent's
journal and the φ that the nodes opened, and computes in the clear what they computed on shares:

    w* = Σ_k (φ_k / Σφ) · clip(w_k),   p = σ(w*·x + b)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from workers.client import oracle
from workers.client.buyer import rows_from_csv
from workers.client.verify import Report, verify_server
from workers.demo import agents, request
from workers.demo.cast import BACKERS, COMPANY, OPERATORS, VISITOR, VOTERS
from workers.demo.screen import money
from workers.demo.selling import payouts
from workers.demo.story import Story


def audit(story: Story) -> Report:
    """Phase 7: everything in the log, fetched and recomputed by a client."""
    story.screen.phase(7, "audit", "Anyone can check all of it")
    state = story.root / "heads.json"
    pins = story.cast.home(VISITOR.key).pinned_nodes()
    report = verify_server(story.cast.url, state=state, sets=pins and [pins])
    for check in report.checks:
        (story.screen.done if check.ok else story.screen.failed)(check.text)
    story.state.put("log", {"size": report.size, "ok": report.ok})
    return report


def comparison(story: Story, *, allowed: bool) -> dict[str, Any]:
    """AUCs of plaintext training, where it may read the sites' rows."""
    if not allowed or not story.state.get("phi"):
        return {"auc_pooled": None, "auc_pooled_all": None, "auc_best_site": None}

    def do() -> dict[str, Any]:
        arguments = ["--sites", str(story.root / "sites"), "--leave-out", *flags(story)]
        said = agents.run("workers.demo.compare", arguments, log=story.log_path("compare"))
        return json.loads(said)

    return story.state.step("comparison", do)


def flags(story: Story) -> list[str]:
    """Sites that contributed next to nothing, from φ alone."""
    return oracle.flagged(story.state.get("phi") or {})


def prediction_error(story: Story) -> float | None:
    """max |p − oracle's p| over all answers that were bought."""
    if not story.state.get("listing"):
        return None
    phi, round_id = story.state.get("phi"), story.state.get("round")
    updates = [oracle.own_update(story.cast.home(key), round_id) for key in phi]
    model = oracle.model_of(updates, list(phi.values()))
    worst = 0.0
    for key in story.buyers:
        path = story.cast.home_path(key) / "patients.csv"
        answers = np.array(story.answers(key))
        features = story.sites["features"]
        rows = rows_from_csv(path, features)[: len(answers)]
        expected = oracle.predictions(model, rows, features, story.state.get("normalisation"))
        worst = max(worst, float(np.abs(expected - answers).max()))
    return worst


def numbers(story: Story, *, compare: bool) -> dict[str, Any]:
    """The fields of `--json`."""
    evidence = story.state.get("evidence") or {}
    names = {story.cast.entry(key)["pid"]: key for key in story.state.data["cast"]}
    paid, treasury = payouts(story.state.get("epochs") or [])
    asked = sum(len(story.answers(key)) for key in story.buyers)
    prices = [story.state.get(f"price {key}") for key in story.buyers]
    price = next((p for p in prices if p), request.PRICE_MICRO)
    log = story.state.get("log") or {"size": 0, "ok": False}
    auc = evidence.get("auc_milli")
    regions = evidence.get("auc_by_stratum") or {}
    return {
        "accepted": bool(story.state.get("accepted")),
        "void": story.state.get("void"),
        "auc_model": None if auc is None else auc / 1000,
        **comparison(story, allowed=compare),
        "auc_by_region": {k: None if v is None else v / 1000 for k, v in regions.items()},
        "phi": story.state.get("phi") or {},
        "flagged": flags(story),
        "queries": asked,
        "price_micro": price,
        "revenue_micro": asked * price,
        "paid_out_micro": {names.get(pid, pid): amount for pid, amount in paid.items()},
        "treasury_micro": treasury,
        "log_size": log["size"],
        "log_verified": log["ok"],
        "phases_s": story.state.get("phases_s") or {},
        "max_abs_prediction_error": prediction_error(story),
    }


def show(story: Story, facts: dict[str, Any], *, compared: bool) -> None:
    """The table at the end."""
    screen = story.screen
    screen.title("How good is it?")
    rows = [("the private model", _auc(facts["auc_model"]))]
    if compared:
        rows += [
            ("pooled plaintext training, same sites", _auc(facts["auc_pooled"])),
            ("pooled, every file as it stands", _auc(facts["auc_pooled_all"])),
            ("best single site", _auc(facts["auc_best_site"])),
        ]
    screen.table(("AUC on the evidence half of the holdouts", ""), rows)
    if compared:
        left_out = ", ".join(story.name(key) for key in facts["flagged"]) or "none"
        screen.note(f"“Same sites” are those that φ did not flag; left out: {left_out}.")
        screen.note("For the comparison this program read every site's file. The nodes never did.")
    if facts["max_abs_prediction_error"] is not None:
        worst = facts["max_abs_prediction_error"]
        screen.note(f"Answers differ from a computation in the clear by at most {worst:.1e}.")
    _people(story, facts)
    screen.title("Seconds")
    seconds = facts["phases_s"]
    screen.table(
        ("phase", "s"),
        [(name, f"{value:.1f}") for name, value in seconds.items()]
        + [("all", f"{sum(seconds.values()):.1f}")],
    )


def _people(story: Story, facts: dict[str, Any]) -> None:
    screen, phi, state = story.screen, facts["phi"], story.state
    before = {**(state.get("before queries") or {}), **(state.get("before funding") or {})}
    after = state.get("after") or {}
    screen.title("Who contributed, who was paid (USDC)")
    rows = []
    for key in [
        *story.custodians,
        *story.validators,
        *(operator.key for operator in OPERATORS),
        *(backer.key for backer in BACKERS),
        COMPANY.key,
        *story.buyers,
    ]:
        score = f"{phi[key]:.3f}" if key in phi else ""
        mark = "flagged" if key in facts["flagged"] else ""
        rows.append(
            (
                story.name(key),
                score,
                mark,
                _amount(before.get(key)),
                _amount(facts["paid_out_micro"].get(key, 0) if after else None, 6),
                _amount(after.get(key), 6),
            )
        )
    rows.append(("SubDAO treasury", "", "", "", _amount(facts["treasury_micro"], 6), ""))
    screen.table(("", "φ", "", "before", "payout", "after"), rows)
    if state.get("before funding"):
        screen.note("Backers' “before” is before they pledged; their pledges are the treasury's.")
        screen.note(f"{BACKERS[0].name} has put her last $100 into the pool of the model's token.")


def logins(story: Story) -> dict[str, dict[str, str]]:
    """E-mail and password of everybody in the story; also written to logins.json (0600)."""
    cast = story.state.data["cast"]
    return {
        key: {name: entry[name] for name in ("name", "part", "email", "password")}
        for key, entry in cast.items()
    }


def what_next(story: Story, *, keeps_running: bool) -> None:
    """Addresses, logins and three things that were left open."""
    screen, url = story.screen, story.cast.url
    who = logins(story)
    path = story.root / "logins.json"
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(json.dumps(who, indent=1, ensure_ascii=False), encoding="utf-8")
    screen.title("What to try next" if keeps_running else "What is there")
    screen.note(f"{url}")
    visitor = who[VISITOR.key]
    screen.note(f"Sign in as  {visitor['email']}   {visitor['password']}")
    screen.note("            200 USDC to spend, 1,000 FLAI staked")
    screen.note()
    if story.state.get("listing"):
        screen.note(f"Buy a prediction   {url}/models/{story.state.get('listing')}/")
    screen.note(f"Vote               {url}/proposals/{story.state.get('open proposal')}/")
    screen.note(f"Back a request     {url}/rfms/{story.state.get('rfm open')['slug']}/")
    holder = who[BACKERS[0].key]
    voter = who[VOTERS[0].key]
    screen.note()
    screen.note(f"SDT holder         {holder['email']}   {holder['password']}")
    screen.note(f"FLAI staker        {voter['email']}   {voter['password']}")
    screen.note(f"Everyone else      {path}")
    screen.note(f"Check the log      python3 manage.py verify --url {url}")


def _auc(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _amount(micro: int | None, digits: int = 2) -> str:
    return "" if micro is None else money(micro, digits)


def write_json(facts: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
