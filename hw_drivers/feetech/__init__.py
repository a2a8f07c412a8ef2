"""Feetech STS/SMS and SCS servos: packets and memory tables."""
