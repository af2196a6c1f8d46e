"""Gradient graphs in operators that every build of ONNX Runtime has, as phones and pages open them."""
