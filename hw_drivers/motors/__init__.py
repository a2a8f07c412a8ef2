"""Servos from the command line: found, set up, calibrated, watched, examined, moved, simulated."""
