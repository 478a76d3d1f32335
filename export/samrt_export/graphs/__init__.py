"""The networks of the model families written node by node as ONNX graphs."""
