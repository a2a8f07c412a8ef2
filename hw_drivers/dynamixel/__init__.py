"""Dynamixel X servos, Protocol 2.0: packets, register tables, bus and virtual servos."""
