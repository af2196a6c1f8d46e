"""What hetlora is measured against, and the same work done by hetlora; the `_step` scripts stand alone."""
