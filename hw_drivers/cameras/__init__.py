"""Camera sources, one module each. `camera.open_camera` selects one by its prefix."""
