"""MIT-mode CAN motors behind a serial CAN adapter: motor frames, and the adapter's framing."""
