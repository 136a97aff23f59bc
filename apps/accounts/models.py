"""People sign in, parties act. A party is known to the log by its `pid` only."""

from __future__ import annotations

import secrets
import uuid
from functools import cached_property

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import Q

from apps.core.clock import now
from apps.core.models import BaseModel
from apps.protocol.consent import AGENT, PURPOSES, WALLET


def new_pid() -> str:
    """16 random bytes in hex: the pseudonym that log leaves carry."""
    return secrets.token_hex(16)


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None) -> User:
        user = self.model(email=email.strip().lower())
        user.set_password(password)
        user.save(using=self._db)
        return user

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email=(username or "").strip().lower())


class User(AbstractBaseUser):
    """A person who signs in, by e-mail (kept in lower case)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(unique=True)
    is_active = models.BooleanField(default=True)
    date_joined = models.DateTimeField(default=now)
    # When the visit of now began, and the one before: what lies between is news.
    visited_at = models.DateTimeField(null=True)
    visited_before_at = models.DateTimeField(null=True)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: list[str] = []
    objects = UserManager()

    @cached_property
    def acting_party(self) -> Party | None:
        """Whom this request acts for: an API key's party, else the first that the person is of."""
        membership = self.memberships.select_related("party").order_by("created_at").first()
        return membership.party if membership else None


class Party(BaseModel):
    """Whoever owns accounts and acts: person, organisation, DAO or the system itself."""

    class Kind(models.TextChoices):
        PERSON = "person"
        ORGANISATION = "organisation"
        DAO = "dao"
        SYSTEM = "system"

    kind = models.CharField(max_length=12, choices=Kind.choices)
    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=60, unique=True)
    # "C": an epoch's parts are bounded and its tree is ordered by it, in whichever language.
    pid = models.CharField(
        max_length=32, unique=True, default=new_pid, editable=False, db_collation="C"
    )
    # Read under this row's lock, so that no unsigned action slips in behind the binding of a key.
    keyed = models.BooleanField(default=False)
    nonce = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="party_kind_known",
                condition=Q(kind__in=["person", "organisation", "dao", "system"]),
            ),
            models.CheckConstraint(
                name="party_pid_is_hex", condition=Q(pid__regex=r"^[0-9a-f]{32}$")
            ),
        ]
        indexes = [
            # Few, whom an epoch's closing leaves out of many.
            models.Index(
                fields=["id"], condition=Q(kind__in=["dao", "system"]), name="party_is_no_payee"
            )
        ]

    def __str__(self) -> str:
        return self.name

    @cached_property
    def signing_key(self) -> str | None:
        """The Ed25519 public key, hex, that signs its tickets and attestations, if bound."""
        key = self.keys.filter(active=True, purpose=AGENT).first()
        return key.public_key if key else None

    @cached_property
    def wallet_key(self) -> str | None:
        """The Ed25519 public key, hex, that must sign what it does; None where none is bound."""
        key = self.keys.filter(active=True, purpose=WALLET).first() if self.keyed else None
        return key.public_key if key else None


class Membership(BaseModel):
    """A person may act for a party."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    party = models.ForeignKey(Party, on_delete=models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=12, default="owner")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "party"], name="membership_once"),
            models.CheckConstraint(name="membership_role_known", condition=Q(role="owner")),
        ]


SCOPES = ("read", "inferences", "wallet", "governance", "training", "account")


def all_scopes() -> list[str]:
    return list(SCOPES)


class ApiKey(BaseModel):
    """A bearer key acting for one party; only its SHA-256 is kept (the key has 256 random bits).

    `scopes` are the parts of the API that it may write to, and read; "read" reads all of them.
    After a rotation the secret before it is good until `previous_until`.
    """

    party = models.ForeignKey(Party, on_delete=models.PROTECT, related_name="api_keys")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_keys")
    prefix = models.CharField(max_length=12)
    sha256 = models.CharField(max_length=64, unique=True)
    label = models.CharField(max_length=60, blank=True)
    scopes = models.JSONField(default=all_scopes)
    spend_limit_micro = models.BigIntegerField(null=True)  # on inferences, a calendar month
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    previous_sha256 = models.CharField(max_length=64, blank=True, db_index=True)
    previous_until = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    def outlives(self, other: ApiKey) -> bool:
        """Whether it works on after the other has expired."""
        if other.expires_at is None:
            return False
        return self.expires_at is None or self.expires_at > other.expires_at


class PartyKey(BaseModel):
    """An Ed25519 key that a party signs with, for one purpose (`apps.protocol.consent`); at most
    one a purpose is active. Replaced and revoked ones stay, to be told from unknown ones."""

    party = models.ForeignKey(Party, on_delete=models.PROTECT, related_name="keys")
    purpose = models.CharField(max_length=8, default=AGENT)
    public_key = models.CharField(max_length=64)
    signature = models.CharField(max_length=128)
    active = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["party", "purpose"],
                condition=Q(active=True),
                name="party_has_one_active_key_a_purpose",
            ),
            models.CheckConstraint(
                name="party_key_purpose_known", condition=Q(purpose__in=PURPOSES)
            ),
            # A roster counts each key once, so two parties must never share one.
            models.UniqueConstraint(
                fields=["public_key"], condition=Q(active=True), name="active_key_has_one_party"
            ),
            models.CheckConstraint(
                name="party_key_is_hex", condition=Q(public_key__regex=r"^[0-9a-f]{64}$")
            ),
        ]
