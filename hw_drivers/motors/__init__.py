"""`v2a motors`: finds, sets up, calibrates, watches, examines, moves and simulates servos."""
