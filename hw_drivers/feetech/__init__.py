"""Feetech STS, SMS and SCS servos: packets, register tables, bus and virtual servos."""
