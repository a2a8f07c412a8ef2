"""Dynamixel Protocol 2.0: packets, control tables, and the bus that speaks them."""
