"""The shape of HetLoRA's own evaluation, at the scale of two cores."""
