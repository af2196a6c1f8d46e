"""The frozen weights as a bundle stores them."""
