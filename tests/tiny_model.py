"""A tiny random BERT in a folder, as Hugging Face would save it: seconds to export, and as real as any."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase, digits

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = (
    "snow",
    "rain",
    "sun",
    "wind",
    "bread",
    "soup",
    "salt",
    "ball",
    "goal",
    "team",
    "weather",
    "food",
    "sport",
)
HIDDEN = 32
LAYERS = 2
POSITIONS = 64


def write_tiny_model(
    folder: Path, *, seed: int = 0, hidden: int = HIDDEN, layers: int = LAYERS, positions: int = POSITIONS
) -> Path:
    """Write config.json, model.safetensors and the tokenizer; the same seed gives the same model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(_config(hidden, layers, positions))
        with torch.no_grad():
            for parameter in model.parameters():
                # No two weights equal, as in a trained model; fresh norms are all ones and biases all zeros.
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    _tokenizer(positions).save_pretrained(folder)
    return folder


def _config(hidden: int, layers: int, positions: int) -> BertConfig:
    return BertConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=positions,
    )


def _vocabulary() -> dict[str, int]:
    letters = ascii_lowercase + digits  # with these and their inner forms every ASCII word can be spelt
    tokens = [*SPECIAL_TOKENS, *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    return {token: number for number, token in enumerate(tokens)}


def _tokenizer(positions: int) -> PreTrainedTokenizerFast:
    vocabulary = _vocabulary()
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=positions,
    )
