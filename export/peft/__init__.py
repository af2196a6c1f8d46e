"""Adapters of PEFT that a bundle begins with."""
