"""The demo: eight unequal devices improve a real pretrained model together."""
