"""Virtual hardware for every family: base servo and bus, faults, a loopback and a serial port."""
