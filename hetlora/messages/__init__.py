"""The messages on the wire: JSON objects with fixed fields; tensors travel beside them as bytes."""
