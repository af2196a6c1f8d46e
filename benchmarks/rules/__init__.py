"""`hetlora bench rules`: one learning problem under every rule, at equal bytes."""
