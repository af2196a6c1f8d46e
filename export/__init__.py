"""Compiles a pretrained model once, for every rank: Hugging Face folder or id in, bundle out."""
