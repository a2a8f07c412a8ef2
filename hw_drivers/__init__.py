"""Hardware drivers: serial ports, motor buses, robots, cameras, and virtual hardware."""
