"""The training side: model definitions, the split by rate, the ONNX export and its parity check."""
