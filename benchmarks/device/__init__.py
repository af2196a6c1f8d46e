"""What a device takes of a bundle, measured on it: the sections of `hetlora bench device`."""
