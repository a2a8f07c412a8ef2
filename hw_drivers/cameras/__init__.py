"""Camera sources, one module each; `hw_drivers.cameras.camera.open_camera` picks one by its prefix."""
