"""The bus room: serial ports, register descriptions, and requests of any servo family."""
