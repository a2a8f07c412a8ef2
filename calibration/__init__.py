"""Quantizes a float bundle and checks that the policy still solves its task (not built yet)."""
