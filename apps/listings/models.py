"""Listings, queries that are paid for one by one, and what each epoch of them owes to whom."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from apps.core.clock import unix_ms
from apps.core.models import BaseModel
from apps.protocol.money import BPS
from apps.protocol.plans import Renewal, Term

METRIC_NONE = -1_000_000  # of a version without a leading metric: behind all others
TO_ALL = "*"  # no kind of credential: a listing that everybody may ask


class Listing(BaseModel):
    """What a SubDAO offers: its accepted version, at its price.

    domain … access, which listings are found, counted and sorted by, are the SubDAO's and the
    version's own: triggers copy them (migration 0013), so that an index can have them. What is
    written to them is not kept.
    """

    class Status(models.TextChoices):
        OPEN = "open"
        CLOSED = "closed"

    dao = models.OneToOneField("subdaos.Dao", models.PROTECT, related_name="listing")
    slug = models.SlugField(max_length=60, unique=True)
    version = models.ForeignKey("training.ModelVersion", models.PROTECT, related_name="listings")
    status = models.CharField(max_length=6, choices=Status, default=Status.OPEN)
    opened_at = models.DateTimeField()
    retired_at = models.DateTimeField(null=True)  # by the vote that is in force
    # Answers of the last days, as counted last: apps.listings.catalogue.count_use.
    answers_recent = models.PositiveIntegerField(default=0)
    domain = models.TextField(default="", editable=False)
    licence = models.TextField(default="", editable=False)
    model_class = models.TextField(default="", editable=False)
    standard = models.TextField(default="", editable=False)
    row_price_micro = models.BigIntegerField(default=0, editable=False)
    lead_milli = models.IntegerField(default=METRIC_NONE, editable=False)
    access = models.TextField(default=TO_ALL, editable=False)  # the credential that asking takes

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["open", "closed"]), name="listings_known_status"
            )
        ]
        indexes = [
            models.Index(fields=["-opened_at", "-id"], name="listings_newest"),
            models.Index(fields=["status", "-opened_at", "-id"], name="listings_newest_open"),
            models.Index(fields=["-created_at", "-id"], name="listings_made"),
            models.Index(fields=["-answers_recent", "-id"], name="listings_most_used"),
            models.Index(fields=["row_price_micro", "id"], name="listings_cheapest"),
            models.Index(fields=["-lead_milli", "-id"], name="listings_best"),
        ]

    def __str__(self) -> str:
        return self.slug


class Mandate(BaseModel):
    """What a party's wallet key lets predictions take without a signature each: `limit_micro` in
    all, until a time, for one API key or (null) for the signed-in browser."""

    party = models.ForeignKey("accounts.Party", models.PROTECT, related_name="mandates")
    public_key = models.CharField(max_length=64)
    listing = models.CharField(max_length=60)
    limit_micro = models.BigIntegerField()
    until = models.DateTimeField()
    api_key = models.ForeignKey(
        "accounts.ApiKey", models.PROTECT, null=True, related_name="mandates"
    )
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(limit_micro__gt=0), name="listings_mandate_limit_positive"
            ),
        ]
        indexes = [models.Index(fields=["party", "until"], name="listings_mandates")]

    def __str__(self) -> str:
        return f"{self.party_id}: {self.limit_micro} until {self.until}"


class Subscription(BaseModel):
    """A buyer's plan at a listing: `rows` at `row_micro` each, paid ahead on `account`, from
    `starts_at` to `ends_at`. A change of plan begins a new term within the period that began at
    `began_at`. `price_micro`: what a row costs without a plan, for this term; `earlier`: the rows
    asked in earlier terms of the period, each with that of its term ([rows, price_micro] in order).
    `access`: what asking took when the term began, as the SubDAO's parameter, and `portion_bps`:
    the part of a model's rows of the day that one buyer could ask. Its rows go on by them.
    `renewal`: what its buyer agreed to for the next period (`protocol.plans.Renewal`), null: that
    there is none; `unrenewed`: the code of the reason why there was none all the same, or why the
    plan ended before its time.
    """

    buyer = models.ForeignKey("accounts.Party", models.PROTECT, related_name="subscriptions")
    listing = models.ForeignKey(Listing, models.PROTECT, related_name="subscriptions")
    account = models.ForeignKey("wallets.Account", models.PROTECT, related_name="+")
    plan = models.CharField(max_length=20)
    rows = models.BigIntegerField()
    row_micro = models.BigIntegerField()
    price_micro = models.BigIntegerField()
    earlier = models.JSONField(default=list)
    began_at = models.DateTimeField()
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    access = models.JSONField(null=True)
    portion_bps = models.PositiveIntegerField(default=BPS)
    renewal = models.JSONField(null=True)
    unrenewed = models.CharField(max_length=40, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["buyer", "listing"],
                condition=Q(ended_at=None),
                name="listings_one_plan_at_a_time",
            ),
            models.CheckConstraint(
                condition=Q(rows__gt=0, row_micro__gt=0, ends_at__gt=F("starts_at")),
                name="listings_plan_is_something",
            ),
        ]
        indexes = [
            models.Index(fields=["ends_at"], condition=Q(ended_at=None), name="listings_plan_runs"),
            models.Index(fields=["buyer", "-began_at", "-id"], name="listings_plan_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.buyer_id} at {self.listing_id}: {self.plan}"

    @property
    def term(self) -> Term:
        return Term(
            self.rows,
            self.row_micro,
            self.price_micro,
            unix_ms(self.starts_at),
            unix_ms(self.ends_at),
        )

    @property
    def agreed(self) -> Renewal | None:
        return Renewal(**self.renewal) if self.renewal else None


class Query(BaseModel):
    """One paid query: hold → run → settle, or release. It is charged once or not at all.

    `upload` is sealed and dropped when the query has ended; `outputs` are sealed to the buyer.
    """

    class State(models.TextChoices):
        HELD = "held"
        RUNNING = "running"
        SETTLED = "settled"
        RELEASED = "released"

    # Found by the first column of an index below, where it has none of its own.
    buyer = models.ForeignKey(
        "accounts.Party", models.PROTECT, related_name="queries", db_index=False
    )
    listing = models.ForeignKey(Listing, models.PROTECT, related_name="queries", db_index=False)
    version = models.ForeignKey("training.ModelVersion", models.PROTECT, related_name="queries")
    epoch = models.ForeignKey(
        "subdaos.Epoch", models.PROTECT, null=True, related_name="queries", db_index=False
    )
    job = models.OneToOneField("compute.Job", models.PROTECT, related_name="query")
    hold = models.OneToOneField("wallets.Transfer", models.PROTECT, related_name="query")
    mandate = models.ForeignKey(Mandate, models.PROTECT, null=True, related_name="queries")
    api_key = models.ForeignKey(
        "accounts.ApiKey", models.PROTECT, null=True, related_name="queries"
    )
    # The plan whose quota it is paid from; null: from the balance.
    subscription = models.ForeignKey(
        Subscription, models.PROTECT, null=True, related_name="queries", db_index=False
    )
    rows = models.PositiveIntegerField()
    price_micro = models.BigIntegerField()
    share_id = models.CharField(max_length=32, unique=True)
    scope = models.CharField(max_length=80, unique=True)
    ticket_id = models.CharField(max_length=64)
    upload = models.BinaryField(null=True)
    outputs = models.JSONField(null=True)
    state = models.CharField(max_length=8, choices=State, default=State.HELD)
    reason = models.TextField(blank=True)
    timeline = models.JSONField(default=list)
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(price_micro__gt=0, rows__gt=0), name="listings_query_costs"
            ),
            models.CheckConstraint(
                condition=Q(state="settled", epoch__isnull=False, outputs__isnull=False)
                | ~Q(state="settled"),
                name="listings_settled_has_epoch_and_outputs",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["settled", "released"], ended_at__isnull=False)
                | Q(state__in=["held", "running"], ended_at__isnull=True),
                name="listings_query_ended_when_over",
            ),
        ]
        indexes = [
            models.Index(
                fields=["expires_at"],
                condition=Q(state__in=["held", "running"]),
                name="listings_query_open",
            ),
            models.Index(
                fields=["buyer"], condition=Q(ended_at=None), name="listings_query_waiting"
            ),
            models.Index(
                fields=["subscription", "state"],
                condition=Q(subscription__isnull=False),
                name="listings_query_of_plan",
            ),
            models.Index(fields=["epoch", "version"], name="listings_query_epoch"),
            models.Index(fields=["buyer", "-created_at", "-id"], name="listings_query_newest"),
            models.Index(fields=["listing", "state"], name="listings_query_count"),
            models.Index(fields=["listing", "-ended_at"], name="listings_query_ended"),
        ]

    def __str__(self) -> str:
        return f"{self.listing_id}: {self.state}"


class Taken(models.Model):
    """How many rows of a version a buyer has asked since `since`, the start of the nodes' epoch;
    those of an epoch before are nobody's any more. Released ones are given back."""

    pk = models.CompositePrimaryKey("buyer", "version")
    buyer = models.ForeignKey("accounts.Party", models.PROTECT, related_name="+", db_index=False)
    version = models.ForeignKey(
        "training.ModelVersion", models.PROTECT, related_name="+", db_index=False
    )
    since = models.DateTimeField()
    rows = models.BigIntegerField()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(rows__gte=0), name="listings_taken_not_negative")
        ]

    def __str__(self) -> str:
        return f"{self.buyer_id} of {self.version_id}: {self.rows} since {self.since}"


class Closing(models.Model):
    """How far an epoch that is over has been divided; `apps.listings.closing` moves it on.

    `plan` is what the freeze found (revenue by version, φ, work, jobs, shares). `cursor` is where
    the running step stands. `frontier` and `size` are the tree of entitlements so far.
    """

    class Step(models.TextChoices):
        QUIET = "quiet"
        WEIGH = "weigh"
        DIVIDE = "divide"
        PROVE = "prove"
        PAY = "pay"
        DONE = "done"

    epoch = models.OneToOneField(
        "subdaos.Epoch", models.PROTECT, primary_key=True, related_name="closing"
    )
    step = models.CharField(max_length=6, choices=Step, default=Step.QUIET)
    cursor = models.CharField(max_length=120, blank=True)
    plan = models.JSONField()
    sdt_micro = models.BigIntegerField()
    holdings = models.DecimalField(max_digits=60, decimal_places=0, default=0)
    entitled_micro = models.BigIntegerField()
    size = models.BigIntegerField(default=0)
    frontier = models.BinaryField(default=bytes)
    root = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(step__in=["quiet", "weigh", "divide", "prove", "pay", "done"]),
                name="listings_closing_known_step",
            ),
            models.CheckConstraint(
                condition=Q(sdt_micro__gte=0, entitled_micro__gte=0, holdings__gte=0),
                name="listings_closing_not_negative",
            ),
        ]
        indexes = [
            models.Index(
                fields=["epoch"], condition=~Q(step="done"), name="listings_closing_unfinished"
            )
        ]

    def __str__(self) -> str:
        return f"{self.epoch_id}: {self.step}"


class Entitlement(models.Model):
    """What one epoch owes to one party as a member of one role, in one asset.

    Millions are written at once, so the keys to other tables are not checked row by row: the
    account that a holder's row is made from has them.
    """

    # In the order of the tree's leaves.
    pk = models.CompositePrimaryKey("epoch", "asset", "role", "pid")
    epoch = models.ForeignKey(
        "subdaos.Epoch", models.PROTECT, related_name="entitlements", db_constraint=False,
        db_index=False,
    )  # fmt: skip
    party = models.ForeignKey(
        "accounts.Party", models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    pid = models.CharField(max_length=32, db_collation="C")
    role = models.CharField(max_length=12, db_collation="C")
    asset = models.CharField(max_length=40, db_collation="C")
    amount_micro = models.BigIntegerField()
    claimed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(amount_micro__gte=0),
                name="listings_entitlement_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(claimed_at=None) | Q(amount_micro__gt=0),
                name="listings_claimed_is_something",
            ),
        ]
        indexes = [
            models.Index(
                fields=["party"],
                condition=Q(claimed_at=None),
                name="listings_claimable",
            )
        ]

    def __str__(self) -> str:
        return f"{self.epoch_id}/{self.role}/{self.pid}: {self.amount_micro}"


class EntitlementNode(models.Model):
    """The hash of a full subtree of 2^level entitlements, from LEVEL on; of those at LEVEL also the
    key of their last leaf, by which a leaf's place is found."""

    LEVEL = 6
    LEAVES = 1 << LEVEL

    pk = models.CompositePrimaryKey("epoch", "level", "index")
    epoch = models.ForeignKey(
        "subdaos.Epoch", models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    level = models.PositiveSmallIntegerField()
    index = models.BigIntegerField()
    hash = models.BinaryField()
    last = models.CharField(max_length=90, db_collation="C", blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["epoch", "last"], condition=~Q(last=""), name="listings_node_last")
        ]

    def __str__(self) -> str:
        return f"{self.epoch_id}/{self.level}/{self.index}"


class PayoutChoice(models.Model):
    """Whether a party's parts are paid to it by themselves; without a row the epoch's size says."""

    party = models.OneToOneField(
        "accounts.Party", models.PROTECT, primary_key=True, related_name="+"
    )
    auto = models.BooleanField()

    def __str__(self) -> str:
        return f"{self.party_id}: {self.auto}"
