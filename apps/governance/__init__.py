"""Proposals, votes and the execution of registered actions. Knows no action itself."""
