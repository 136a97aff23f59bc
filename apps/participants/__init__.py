"""Calls for data and validation, attestations, the whitelist, the roster of a SubDAO."""
