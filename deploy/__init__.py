"""Brings bundles to robots: signing, flashing, an agent on the robot, fleets (not built yet)."""
