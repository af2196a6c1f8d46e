"""Training and scoring an adapter on the device."""
