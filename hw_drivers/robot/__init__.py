"""The robot room: configuration, checks at connect, positions and goals in radians, health."""
