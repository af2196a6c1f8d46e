"""Names in the graphs of a bundle, which `export` writes and a device feeds and reads.

A graph takes besides each factor of the adapter, under the key that `hetlora.tensors.factor_keys` gives it.
"""

from __future__ import annotations

from typing import Final

# What a tokenizer fills, int64 (batch, tokens); an encoder may do with fewer, the manifest lists its own.
INPUT_IDS: Final = "input_ids"
ATTENTION_MASK: Final = "attention_mask"
TOKEN_TYPE_IDS: Final = "token_type_ids"
POSITION_IDS: Final = "position_ids"  # never fed: the graphs count positions themselves
DECODER_INPUT_IDS: Final = "decoder_input_ids"
PIXEL_VALUES: Final = "pixel_values"  # float32 (batch, channels, height, width)
TOKEN_INPUTS: Final = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)

LABELS: Final = "labels"  # int64 (batch,), positions in the manifest's labels
LOGITS: Final = "logits"  # float32 (batch, labels)
LOSS: Final = "loss"  # float32 (); in the training graph with the pruning penalty

# HetLoRA's regulariser, in the training graph alone.
PRUNING_DECAY: Final = "pruning_decay"  # float64 (): gamma; the penalty presses on ranks from floor(gamma r) on
PRUNING_PENALTY: Final = "pruning_penalty"  # float32 (): lambda
IGNORED_LABEL: Final = -100  # a position of (batch, tokens) labels that does not count, as in PyTorch
