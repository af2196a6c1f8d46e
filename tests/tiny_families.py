"""A tiny random model of every family, in a folder as Hugging Face would save it: seconds to trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from tiny_model import SPECIAL_TOKENS, WORDS
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto import modeling_auto

from export.quiet import quiet_libraries

HIDDEN: Final = 32
LAYERS: Final = 2
POSITIONS: Final = 64
VOCABULARY: Final = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *WORDS))}
IMAGE: Final = (3, 32, 32)  # channels, height, width

_AUTO: Final[dict[str, Any]] = {
    "text-classification": modeling_auto.AutoModel,
    "text-generation": modeling_auto.AutoModelForCausalLM,
    "image-classification": modeling_auto.AutoModelForImageClassification,
    "text2text-generation": modeling_auto.AutoModelForSeq2SeqLM,
}
_SIZES: Final = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 2 * HIDDEN,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": VOCABULARY["[PAD]"],
    "bos_token_id": VOCABULARY["[CLS]"],
    "eos_token_id": VOCABULARY["[SEP]"],
}
_GROUPED: Final = {**_SIZES, "num_key_value_heads": 2}


@dataclass(frozen=True, slots=True)
class TinyFamily:
    """What a tiny model is made of, and what a command line would call a few of its linear layers."""

    task: str
    configure: Callable[[], PretrainedConfig]
    targets: tuple[str, ...]

    def model(self, layers: int = LAYERS) -> PreTrainedModel:
        """A model with fresh weights."""
        config = self.configure()
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):  # which layers see a window alone, one name each
            config.layer_types = config.layer_types[:layers]
        made: PreTrainedModel = _AUTO[self.task].from_config(config, attn_implementation="eager")
        return made.eval()


def _config(name: str, **sizes: Any) -> Callable[[], PretrainedConfig]:
    return lambda: getattr(transformers, name)(**sizes)


def _encoder(name: str, *targets: str, **sizes: Any) -> TinyFamily:
    return TinyFamily("text-classification", _config(name, **{**_SIZES, **sizes}), targets)


def _decoder(name: str, *targets: str, **sizes: Any) -> TinyFamily:
    return TinyFamily("text-generation", _config(name, **{**_GROUPED, **sizes}), targets)


TINY_FAMILIES: Final[dict[str, TinyFamily]] = {
    "llama": _decoder("LlamaConfig", "q_proj", "down_proj"),
    "smollm": _decoder("LlamaConfig", "q_proj", "v_proj", tie_word_embeddings=True),
    "qwen2": _decoder("Qwen2Config", "q_proj", "up_proj"),
    "qwen3": _decoder("Qwen3Config", "q_proj", "o_proj", head_dim=8),
    "gemma": _decoder("GemmaConfig", "q_proj", "v_proj", head_dim=8),
    "gemma2": _decoder(
        "Gemma2Config", "q_proj", "gate_proj", head_dim=8, query_pre_attn_scalar=8, sliding_window=4
    ),
    "gemma3": _decoder(
        "Gemma3TextConfig",
        "q_proj",
        "gate_proj",
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "phi3": _decoder("Phi3Config", "qkv_proj", "gate_up_proj"),
    "gpt2": _decoder("GPT2Config", "c_attn", "c_fc"),
    "opt": _decoder("OPTConfig", "q_proj", "fc1", ffn_dim=2 * HIDDEN, word_embed_proj_dim=HIDDEN),
    "gpt-neox": _decoder("GPTNeoXConfig", "query_key_value", "dense_h_to_4h"),
    "bert": _encoder("BertConfig", "query", "value"),
    "distilbert": _encoder(
        "DistilBertConfig", "q_lin", "v_lin", dim=HIDDEN, n_layers=LAYERS, n_heads=4, hidden_dim=2 * HIDDEN
    ),
    "roberta": _encoder("RobertaConfig", "query", "value"),
    "mobilebert": _encoder(
        "MobileBertConfig",
        "query",
        "value",
        intra_bottleneck_size=16,
        embedding_size=16,
        num_feedforward_networks=2,
    ),
    "xlm-roberta": _encoder("XLMRobertaConfig", "query", "value"),
    "electra": _encoder("ElectraConfig", "query", "value", embedding_size=16),
    "mpnet": _encoder("MPNetConfig", "attn.q", "attn.v"),
    "modernbert": _encoder("ModernBertConfig", "Wqkv", "Wi", local_attention=8),
    "deberta-v2": _encoder(
        "DebertaV2Config",
        "value_proj",  # queries and keys serve the positions too
        "attention.output.dense",
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        type_vocab_size=0,
        position_biased_input=False,
    ),
    "vit": TinyFamily(
        "image-classification",
        _config(
            "ViTConfig",
            image_size=IMAGE[1],
            patch_size=8,
            hidden_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            intermediate_size=2 * HIDDEN,
            num_labels=3,
        ),
        ("query", "value"),
    ),
    "t5": TinyFamily(
        "text2text-generation",
        _config(
            "T5Config",
            vocab_size=len(VOCABULARY),
            d_model=HIDDEN,
            d_kv=8,
            d_ff=2 * HIDDEN,
            num_layers=LAYERS,
            num_heads=4,
            pad_token_id=VOCABULARY["[PAD]"],
            eos_token_id=VOCABULARY["[SEP]"],
            decoder_start_token_id=VOCABULARY["[PAD]"],
        ),
        ("q", "v"),
    ),
}


def write_tiny_family(folder: Path, name: str, *, layers: int = LAYERS, seed: int = 0) -> Path:
    """Write config.json, model.safetensors and a tokenizer, but for images; the seed decides the weights."""
    family = TINY_FAMILIES[name]
    with torch.random.fork_rng(devices=[]), quiet_libraries():
        torch.manual_seed(seed)
        model = family.model(layers)
        with torch.no_grad():
            for parameter in model.parameters():
                # No two weights equal, as in a trained model; fresh norms are all ones and biases all zeros.
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(folder)
        if family.task != "image-classification":
            _tokenizer(pads=family.task != "text-generation").save_pretrained(folder)
    return folder


def _tokenizer(*, pads: bool) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    padding = {"pad_token": "[PAD]"} if pads else {}  # GPT-2 and Llama come without
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_max_length=POSITIONS,
        **padding,
    )
