"""The agent beside the data, for custodians and validators.

Steps, each repeatable: `attest` (the file fits; only counts and a commitment leave), `normalise`
(sums of columns, secret-shared; a validator declares its number of rows), `train` (an update
trained here, secret-shared; a validator shares its holdout). Every step checks first what it is
asked to join: nodes and peers pinned, roster complete, circuits of its own release. What leaves the
site is shown before it leaves, and is in the journal.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from apps.protocol import wire
from apps.protocol.circuits import ModelClass
from apps.protocol.circuits.moments import limits_in
from apps.protocol.circuits.noise import CLIP
from apps.protocol.encoding import encoded_names
from apps.protocol.jobs import fingerprint
from apps.protocol.rfm_spec import schema_of
from apps.protocol.sharing import CONSENT_DOMAIN, consent_to
from apps.protocol.targets import class_of, extras_of
from workers.client import data, keeping, sources, training
from workers.client.api import Api, ClientError, wait_for
from workers.client.home import Home
from workers.client.joining import (
    CUSTODIAN,
    ENDED,
    MIN_CELL,
    MOMENTS,
    ROUND,
    SECURE_SGD,
    VALIDATOR,
    Joined,
    Print,
    check_normalisation,
    check_schedule,
    check_schema,
    check_spread,
    join,
    schema_digest,
)
from workers.client.nodes import NotTrusted, trusted_nodes
from workers.client.outbox import Outbox

ATTESTATION_DOMAIN = "flai/attestation/v1"
PARTY_KEY_DOMAIN = "flai/party-key/v1"
WAIT_DEADLINE_S = 3600.0
SUMS_ROWS_MIN = 2  # for each column that is summed: of fewer, sums are the rows but for a turn


class Agent:
    """One site in one role. `say` gets each line that the person at the site should see.

    `accept_roster`: take part although the roster has lost members since the last time, or the
    normalisation that is kept is none that this site knows.
    `accept_schema`: from now on a SubDAO's columns may be what it says, not what was attested.
    `accept_threshold`: from now on so many nodes that learn nothing together are enough.
    `dry_run`: check everything and show what would leave, send nothing and write nothing down.
    `share_rows`: the organisation agrees that its rows, not an update, go to the nodes in shares.
    `keep_rows`: and that the nodes keep them for further rounds, to each of which it consents anew.
    `share_sums`: it agrees to the sums that stand for its rows in a round that is solved.
    """

    def __init__(
        self,
        home: Home,
        role: str,
        *,
        say: Print = print,
        api: Api | None = None,
        accept_roster: bool = False,
        accept_schema: bool = False,
        accept_threshold: int | None = None,
        dry_run: bool = False,
        share_rows: bool = False,
        keep_rows: bool = False,
        share_sums: bool = False,
    ) -> None:
        self.dry_run = dry_run
        self.share_rows = share_rows
        self.keep_rows = keep_rows
        self.share_sums = share_sums
        self.home = home
        self.role = role
        self.say = say
        self.accept_roster = accept_roster
        self.accept_schema = accept_schema
        self.accept_threshold = accept_threshold
        self._api = api

    @property
    def api(self) -> Api:
        if self._api is None:
            self._api = self.home.api()
        return self._api

    # -- attest

    def attest(self, rfm_slug: str) -> dict[str, Any]:
        """Check the file against the request's schema and file a signed attestation of the result.

        What leaves: number of rows, column names, share of missing cells, rows per stratum (none
        below 5) and a salted commitment to the file. Returns the application.
        """
        rfm = self.api.get(f"rfms/{rfm_slug}/")
        table = self.table(rfm["spec"])
        done = self.home.journal.last("attested", rfm=rfm_slug, role=self.role)
        if done:
            self.say(f"Already attested for {rfm_slug}.")
            return done["application"]
        me = self.register_key()
        attestation, salt = self._attestation(rfm, table, me["pid"])
        self._show_attestation(attestation, table)
        # The salt goes to the journal first: without it the commitment could not be opened later.
        kept = {"attestation": attestation, "salt": salt, "schema": schema_of(rfm["spec"])}
        self.home.journal.write("attesting", rfm=rfm_slug, **kept)
        body = {
            "role": self.role,
            "attestation": attestation,
            "signature": wire.sign(self.home.identity(), ATTESTATION_DOMAIN, attestation),
        }
        application = self.api.post(f"rfms/{rfm_slug}/applications/", body)
        self.home.journal.write("attested", rfm=rfm_slug, role=self.role, application=application)
        self.say(f"Filed as {self.role}: {application.get('status', 'filed')}.")
        return application

    def register_key(self) -> dict[str, Any]:
        """Bind this home's signing key to the organisation. Returns the party: pid, slug, name."""
        me = self.api.get("me/")
        party = me.get("party", me)
        key = self.home.identity_hex()
        if party.get("public_key", party.get("signing_key")) != key:
            signed = {"pid": party["pid"], "public_key": key}
            signature = wire.sign(self.home.identity(), PARTY_KEY_DOMAIN, signed)
            self.api.put("me/signing-key/", {"public_key": key, "signature": signature})
        return party

    def table(self, spec: Mapping[str, Any]) -> data.Table:
        """This site's rows, checked against a request's spec or a SubDAO's parameters."""
        if "features" not in spec:
            spec = {**spec, **spec["schema"]}
        config = self.home.config
        schema = data.Schema.of_spec(
            spec,
            label=config.get("label"),
            strata=config.get("strata"),
            fhir=config.get("fhir"),
        )
        least = int(spec.get("min_rows") or spec.get("governance", {}).get("min_rows") or 1)
        table = data.read_table(
            self.home.file("data", "rows.csv"),
            schema,
            min_rows=least,
            need_strata=self.role == VALIDATOR,
            holdout=self.role == VALIDATOR,
        )
        self.say(f"{table.path.name}: {table.rows} rows, {len(table.columns)} columns.")
        if table.missing:
            self.say(f"  {table.missing} missing cells take their column's mean.")
        if table.clamped:
            self.say(f"  {table.clamped} cells outside the plausible range were moved to its edge.")
        for note in table.notes:
            self.say(f"  {note}")
        return table

    def _table_of(self, params: Mapping[str, Any], subdao: str) -> data.Table:
        """This site's rows by a SubDAO's parameters, whose columns this site attested to."""
        check_schema(
            schema_of({**params, **params["schema"]}),
            subdao=subdao,
            home=self.home,
            accept_schema=self.accept_schema,
            note=not self.dry_run,
        )
        return self.table(params)

    def _attestation(
        self, rfm: Mapping[str, Any], table: data.Table, pid: str
    ) -> tuple[dict[str, Any], str]:
        salt = secrets.token_bytes(32)
        commitment = sources.digest(table.path, salt)
        strata: dict[str, int | None] = {}
        spec = rfm["spec"]
        for value in (spec.get("strata") or {}).get("values", []):
            count = 0 if table.strata is None else int((table.strata == value).sum())
            strata[value] = count if count >= MIN_CELL else None
        return {
            "v": 1,
            "rfm": rfm["slug"],
            "pid": pid,
            "role": self.role,
            "schema_hash": schema_digest(schema_of(spec)),
            "rows": table.rows,
            "columns": list(table.columns),
            "missing_ppm": table.missing * 1_000_000 // (table.rows * len(table.columns)),
            "strata": strata,
            "dataset_commitment": commitment,
        }, salt.hex()

    def _show_attestation(self, attestation: Mapping[str, Any], table: data.Table) -> None:
        self.say("What leaves this site:")
        for name in ("rows", "missing_ppm", "strata", "schema_hash", "dataset_commitment"):
            self.say(f"  {name:18} {json.dumps(attestation[name])}")
        self.say(f"  {'columns':18} their {len(attestation['columns'])} names")
        numbers = len(table.numbers)
        self.say(f"Rounds open sums over all sites, of the {numbers} that are numbers alone.")

    # -- rounds

    def round_of(self, *, subdao: str, round_id: str | None = None) -> dict[str, Any]:
        """The round to take part in: that one, or the SubDAO's current one."""
        round_id = round_id or self._open_round(subdao)
        if round_id is None:
            raise ClientError(f"{subdao} has no round open now.", code="no_round")
        return self.api.get(f"rounds/{round_id}/")

    def _open_round(self, subdao: str) -> str | None:
        current = self.api.get(f"subdaos/{subdao}/").get("current_round")
        return current["id"] if isinstance(current, dict) else current

    def normalise(self, *, subdao: str, round_id: str | None = None) -> dict[str, Any] | None:
        """Custodian: share [n, Σx, Σx²], and consent where the round shares rows. Validator:
        declare the number of holdout rows."""
        current = self.round_of(subdao=subdao, round_id=round_id)
        dao = self.api.get(f"subdaos/{subdao}/")
        table, drawn = self._drawn(current, self._table_of(dao["params"], subdao), subdao)
        if self.role == VALIDATOR:
            body = {"rows": table.rows}
            if self.dry_run:
                self.say(f"A dry run: the number {table.rows} would leave this site, sent nothing.")
                return None
            self.api.post(f"rounds/{current['id']}/rows/", body)
            about = {"round": current["id"], "subdao": subdao}
            self.home.journal.write("rows_declared", **about, rows=table.rows, **drawn)
            self.say(f"Declared {table.rows} holdout rows; the rows themselves come later, sealed.")
            return None
        model = class_of(dao["params"])
        if current["training"] == SECURE_SGD:
            self._consent(current, table, model, extras_of(model, dao["params"]), drawn)
        elif model.sums:
            self._may_sum(table, model)
        if current["summed"]:
            self.say("The serving version's mean and variance are kept: no sums are asked for.")
            return None
        again = None if self.dry_run else self._outbox().resumed(current, MOMENTS)
        if again:
            return again
        joined = self._join(current, MOMENTS, table, subdao, model)
        f = joined.slot.f
        limits = limits_in(joined.params)
        sums = training.moments(
            table, f=f, sites=joined.custodians, limits=limits, series=model.series
        )
        of = "the last value, for every lag" if model.series else "each column of numbers"
        what = f"{len(sums)} sums over {table.rows} rows (count, Σx, Σx² of {of})"
        return self._outbox().submit(current, MOMENTS, joined, sums, what)

    def train(self, *, subdao: str, round_id: str | None = None) -> dict[str, Any]:
        """Custodian: train and share the update. Validator: share the standardised holdout."""
        current = self.round_of(subdao=subdao, round_id=round_id)
        again = None if self.dry_run else self._outbox().resumed(current, ROUND)
        if again:
            return again
        if not current.get("normalisation"):
            raise ClientError(
                "The round's normalisation is not known yet: other sites' sums are missing.",
                code="too_early",
            )
        dao = self.api.get(f"subdaos/{subdao}/")
        table, _ = self._drawn(current, self._table_of(dao["params"], subdao), subdao)
        model = class_of(dao["params"])
        joined = self._join(current, ROUND, table, subdao, model)
        named = {*model.extras, *model.unit_names} & set(joined.params)
        if {name: joined.params[name] for name in named} != extras_of(model, dao["params"]):
            raise NotTrusted(
                "The round's classes or hidden layers are not the SubDAO's.", "bad_params"
            )
        check_normalisation(
            current,
            joined,
            numbers=len(table.numbers),
            subdao=subdao,
            home=self.home,
            accept_roster=self.accept_roster,
            note=not self.dry_run,
        )
        mean, std = training.constants(current["normalisation"])
        features = training.standardise(table.features, mean, std)
        check_spread(table, features)
        self._say_cut(features, training.FEATURE_BOUND, "standardised cells")
        if joined.name == "rows":
            self._must_agree()
            values = self._rows(table, features, dao["params"])
            what = f"{len(values)} rows of {values.shape[1]} values"
        elif self.role == CUSTODIAN:
            values = self._update(table, features, dao["params"])
            self._say_cut(values, training.UPDATE_BOUND, "numbers of the update")
            how = "summed over" if class_of(dao["params"]).sums else "trained on"
            what = f"an update of {len(values)} numbers, {how} {table.rows} rows"
            self._say_length(table, features, values, dao["params"], joined.params)
        else:
            values = self._holdout(table, features, dao["params"])
            what = f"{len(values)} holdout rows of {values.shape[1]} values"
        stay = self._stay(current, joined.name)
        return self._outbox().submit(current, ROUND, joined, values, what, **stay)

    def run(self, *, rfm: str) -> dict[str, Any]:
        """Everything from the attestation to the delivered update, waiting for the others."""
        self.attest(rfm)
        self.say("Waiting for the funding and the whitelist vote …")
        subdao = wait_for(
            lambda: self.api.get(f"rfms/{rfm}/").get("subdao"),
            deadline_s=WAIT_DEADLINE_S,
            what="the award",
        )
        current = wait_for(
            lambda: self.api.get(f"subdaos/{subdao}/").get("current_round"),
            deadline_s=WAIT_DEADLINE_S,
            what="the first round",
        )
        round_id = current["id"] if isinstance(current, dict) else current
        self.normalise(subdao=subdao, round_id=round_id)
        self.say("Waiting for the other sites' sums …")
        wait_for(
            lambda: self._ready_for_updates(round_id),
            deadline_s=WAIT_DEADLINE_S,
            what="the normalisation",
        )
        return self.train(subdao=subdao, round_id=round_id)

    def _ready_for_updates(self, round_id: str) -> bool | None:
        current = self.api.get(f"rounds/{round_id}/")
        if current["phase"] in ENDED:
            raise ClientError(f"The round ended: {current.get('reason') or current['phase']}.")
        return True if current.get("normalisation") else None

    def _join(
        self,
        current: Mapping[str, Any],
        stage: str,
        table: data.Table,
        subdao: str,
        model: ModelClass,
    ) -> Joined:
        return join(
            current,
            stage,
            table,
            subdao=subdao,
            model=model,
            home=self.home,
            role=self.role,
            say=self.say,
            accept_roster=self.accept_roster,
            accept_threshold=self.accept_threshold,
            note=not self.dry_run,
        )

    def _outbox(self) -> Outbox:
        return Outbox(self.home, self.role, api=self.api, say=self.say, dry_run=self.dry_run)

    # -- rows

    def _stay(self, current: Mapping[str, Any], slot: str) -> dict[str, Any]:
        """Whether what this site puts there may stay for further rounds, and until when what it
        shares now does: rows as long as it consented to."""
        stays = keeping.lets_stay(slot, self.home, keep_rows=self.keep_rows)
        until = keeping.stays_until(current)
        if slot == "rows":
            said = self.home.journal.last("consenting", round=current["id"]) or {"consent": {}}
            until = said["consent"].get("stays_until")
        return {"stays": stays, "until": until}

    def _drawn(
        self, current: Mapping[str, Any], table: data.Table, subdao: str
    ) -> tuple[data.Table, dict[str, Any]]:
        """The rows that this site brings, and what the journal keeps of how they were chosen: all,
        or as many as each member of its role may bring to this round, drawn at random, the same
        ones in each step, and in further rounds where the nodes keep them."""
        if self.role == CUSTODIAN and current["training"] != SECURE_SGD:
            return table, {}
        most = current.get("rows_max", {}).get(self.role)
        last = self.home.journal.last
        said = last("rows_declared", round=current["id"]) or {}
        if not said and (self.role == VALIDATOR or self.keep_rows):
            said = last("rows_declared", subdao=subdao, rows=most) or {}
        if said.get("of") == table.rows:
            most, seed = said["rows"], said["seed"]
        elif type(most) is int and 0 < most < table.rows:
            seed = secrets.token_hex(32)
        else:
            return table, {}
        self.say(
            f"{table.rows} rows are more than each {self.role} of this round may bring: {most} are "
            "drawn at random."
        )
        kept = {"of": table.rows, "seed": seed}
        return table.drawn(most, bytes.fromhex(seed)), kept

    def withdraw(self, *, subdao: str, round_id: str | None = None) -> dict[str, Any]:
        """Take this site's share in the round's training back; the nodes delete it, and what they
        keep of it for further rounds. Without a round: what it sent to the one that is open, and
        what they keep, whichever round that came with."""
        outbox = self._outbox()
        if round_id is None:
            round_id = self._open_round(subdao)
            kept_in = outbox.kept_in(subdao, round_id)
            if kept_in not in (None, round_id):
                if round_id is not None and outbox.sent_to(round_id):
                    outbox.withdraw(self.round_of(subdao=subdao, round_id=round_id))
                round_id = kept_in
        return outbox.withdraw(self.round_of(subdao=subdao, round_id=round_id))

    def _must_agree(self) -> None:
        """Raises: ClientError("no_consent") unless this site has said that it shares rows."""
        if not self.share_rows:
            raise ClientError(
                "This round trains on ROWS. Each custodian's rows go to the nodes in shares: one "
                "node reads nothing of them, but two that put their words together read all. If "
                "your organisation consents, run the same command with --share-rows. "
                "Nothing was sent.",
                code="no_consent",
            )

    def _may_sum(self, table: data.Table, model: ModelClass) -> None:
        """Raises: ClientError("no_consent") unless this site says that it shares sums; DataError
        where they would be of too few rows, or the site has a penalty or weights of its own.
        """
        if not self.share_sums:
            raise ClientError(
                f"{model.title} is solved from SUMS of products of each site's columns. They go to "
                "the nodes in shares: one node reads nothing of them, but two that put their words "
                "together read, exactly, in how many rows any two values stand together. If your "
                "organisation consents, run the same command with --share-sums. Nothing was sent.",
                code="no_consent",
            )
        own = [name for name in ("C", "update") if name in self.home.config.get("train", {})]
        if own:
            raise data.DataError(
                f"{model.title}: sites share sums, no weights and no penalty of their own. Take "
                f"{' and '.join(own)} out of [train] in agent.toml."
            )
        least = SUMS_ROWS_MIN * (table.width + 2)
        if table.rows < least:
            raise data.DataError(
                f"{table.path.name} has {table.rows} rows; sums of fewer than {least} (twice the "
                "columns, the label's and one more) would say too much about each."
            )

    def _consent(
        self,
        current: Mapping[str, Any],
        table: data.Table,
        model: ModelClass,
        extras: Mapping[str, int],
        drawn: Mapping[str, Any],
    ) -> None:
        """Sign, journal and file the organisation's consent to this round, once."""
        self._must_agree()
        nodes = trusted_nodes(self.home, current["nodes"])
        check_schedule(current["schedule"], home=self.home, say=self.say)
        consent = consent_to(
            round_id=current["id"],
            circuits=model.steps_ids,
            nodes=[fingerprint(node) for node in nodes],
            rows=table.rows,
            columns=table.width + model.targets(extras),
            expires_at=int(datetime.fromisoformat(current["expires_at"]).timestamp()),
            stays_until=keeping.stays_until(current) if self.keep_rows else None,
        )
        until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(consent["expires_at"]))
        self.say(
            f"Consent to share {table.rows} rows of {consent['columns']} values in this round, "
            f"until {until} UTC, for {' or '.join(consent['circuits'])} on "
            f"{', '.join(node['name'] for node in nodes)}."
        )
        if "stays_until" in consent:
            stays = keeping.shown(consent["stays_until"])
            self.say(f"  The nodes may keep them until {stays}; each round needs consent anew.")
        if self.dry_run or self.home.journal.last("rows_declared", round=current["id"]):
            return
        signature = wire.sign(self.home.identity(), CONSENT_DOMAIN, consent)
        about = {"round": current["id"], "subdao": current["dao"]}
        self.home.journal.write("consenting", **about, consent=consent, signature=signature)
        body = {"rows": table.rows, "consent": consent, "signature": signature}
        self.api.post(f"rounds/{current['id']}/rows/", body)
        self.home.journal.write("rows_declared", **about, rows=table.rows, **drawn)

    # -- what is shared

    def _say_cut(self, values: np.ndarray, bound: float, what: str) -> None:
        """How many lay outside ±bound, where nodes would cut them too."""
        cut = int((np.abs(values) == bound).sum())
        if cut:
            self.say(f"  {cut} {what} of {values.size} lay outside ±{bound:g} and were cut to it.")

    def _say_length(
        self,
        table: data.Table,
        features: np.ndarray,
        update: np.ndarray,
        about: Mapping[str, Any],
        params: Mapping[str, Any],
    ) -> None:
        """What the public length of a privacy budget leaves of this update, or of the model that
        nodes solve of its sums alone."""
        if CLIP not in params:
            return
        model, what = class_of(about), "The update"
        if model.sums and model.train:
            wanted = training.targets(table.labels, model, about["label"])
            update, what = model.train(features, wanted, 1, 1.0), "The model of these sums alone"
        length, most = float(np.linalg.norm(update)), params[CLIP] / 1000
        kept = "all of it counts" if length <= most else f"the nodes shorten it to {most:g}"
        self.say(f"{what} has a length of {length:.3f}: {kept}.")

    def _rows(
        self, table: data.Table, features: np.ndarray, params: Mapping[str, Any]
    ) -> np.ndarray:
        """[n, d + t] in an order in which each step's rows are alike."""
        target = training.target_columns(table.labels, class_of(params), params["label"])
        order = data.row_order(table.labels, None)
        return np.concatenate([features, target], axis=1)[order]

    def _update(
        self, table: data.Table, features: np.ndarray, params: Mapping[str, Any]
    ) -> np.ndarray:
        model, label = class_of(params), params["label"]
        if model.sums:
            self._may_sum(table, model)
            self.say(f"Summing: {model.title.lower()} on {table.rows} rows …")
            return training.train(features, table.labels, c=1.0, model=model, label=label)
        options = self.home.config.get("train", {})
        own = options.get("update")
        if own and model.hidden:
            raise data.DataError(
                "A network's update is what steps changed from a start that all sites have. Take "
                "update out of agent.toml, and the agent takes them."
            )
        if own:
            self.say(f"Using the update that this site's own tooling made: {own}.")
            outputs = model.outputs(extras_of(model, params))
            columns = encoded_names(params["schema"]["features"])
            return training.bounded(data.read_weights(self.home.path / own, columns, outputs))
        c = float(options.get("C", 1.0))
        self.say(f"Training: {model.title.lower()} on {table.rows} rows (C = {c:g}) …")
        return training.train(
            features,
            table.labels,
            c=c,
            model=model,
            label=label,
            hidden=params.get("hidden") or (),
        )

    def _holdout(
        self, table: data.Table, features: np.ndarray, params: Mapping[str, Any]
    ) -> np.ndarray:
        values = (params.get("strata") or {}).get("values", [])
        strata = data.one_hot(table.strata, values, table.rows)
        order = data.row_order(table.labels, table.strata, by_time=class_of(params).series)
        target = training.target_columns(table.labels, class_of(params), params["label"])
        return np.concatenate([features, target, strata], axis=1)[order]
