"""Requests-for-Model: drafts, the SuperDAO's approval, the crowdfund, the award."""
