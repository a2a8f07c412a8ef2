"""Virtual hardware: servos that answer on a loopback port or on a pseudo terminal."""
