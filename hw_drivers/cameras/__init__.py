"""Camera sources, one module each; `camera.open_camera` picks one by its prefix."""
