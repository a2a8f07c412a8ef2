"""Training side: model definitions, the split into rates, ONNX export and its parity."""
