"""The node daemon: keeps shares, obeys tickets, computes with its peers. No Django."""

RELEASE = "0.1.0"
