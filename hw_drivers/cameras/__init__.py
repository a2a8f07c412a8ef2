"""Camera sources, one module each; `hw_drivers.camera.open_camera` picks one by its prefix."""
