"""Compiles a pretrained model once, for every rank: Hugging Face folder or id in, bundle out."""

from export.quiet import quiet_torchao as _quiet_torchao

_quiet_torchao()  # before the first import of torch's kin, wherever that stands
