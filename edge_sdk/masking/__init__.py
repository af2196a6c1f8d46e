"""A device's part in a round with masks: arithmetic and what is to be kept, without service and disk."""
