"""Names and constants in the graphs of a bundle, which `export` writes and a device feeds and reads.

A graph takes besides each factor of the adapter, under the key that `hetlora.tensors.factor_keys` gives it.
"""

from __future__ import annotations

from typing import Final

# What a tokenizer fills, int64 (batch, tokens); an encoder may do with fewer, the manifest lists its own.
INPUT_IDS: Final = "input_ids"
ATTENTION_MASK: Final = "attention_mask"
TOKEN_TYPE_IDS: Final = "token_type_ids"
POSITION_IDS: Final = "position_ids"  # never fed: the graphs count positions themselves
DECODER_INPUT_IDS: Final = "decoder_input_ids"  # int64 (batch, target_tokens), in inference alone
PIXEL_VALUES: Final = "pixel_values"  # float32 (batch, channels, height, width)
TOKEN_INPUTS: Final = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)

# int64: (batch,) positions in the manifest's labels; where text is generated (batch, tokens), each the token
# itself, or (batch, target_tokens) for a decoder of its own.
LABELS: Final = "labels"
IGNORED_LABEL: Final = -100  # a place of generated text that does not count, as in PyTorch
LOGITS: Final = "logits"  # float32 (batch, labels), or (batch, tokens or target_tokens, vocabulary)
LOSS: Final = "loss"  # float32 (); in the training graph with the pruning penalty

# The frozen head of a classifier of text: cosines with the prototypes, times LOGIT_SCALE.
LOGIT_SCALE: Final = 20.0  # cosines lie within one of each other; twenty makes them usable logits
# sqrt(x) has an infinite slope at zero. The root of this is far below the norm of any embedding.
LENGTH_EPSILON: Final = 1e-12

# HetLoRA's regulariser, in the training graph alone.
PRUNING_DECAY: Final = "pruning_decay"  # float64 (): gamma; the tail begins at rank floor(gamma r)
PRUNING_PENALTY: Final = "pruning_penalty"  # float32 (): lambda
