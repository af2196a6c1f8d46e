"""Finds the pretrained model, a local folder or a hub id through the hub's cache. Its code never runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer  # type: ignore[import-untyped]
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from export.quiet import first_line
from export.source.tracing import auto_class
from hetlora.errors import ModelNotExportable
from hetlora.manifest import MAX_TOKENS

Loaded = TypeVar("Loaded")

# Pickled weights are left out on purpose: loading them runs code of their author.
_WANTED_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on this disk: its name, the hub's commit if it came from there, and its configuration."""

    path: Path
    name: str
    revision: str | None
    config: PretrainedConfig

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON object that may lie in the folder; empty if it does not."""
        return _read_json(self.path / name)


def open_model(model: str, revision: str | None) -> ModelFolder:
    """Find a model by its folder or its hub id.

    Raises:
        ModelNotExportable: no such folder or id, no configuration that can be read, or one that needs code
            which came with it.
    """
    folder, commit = _locate(model, revision)
    raw = _read_json(folder / "config.json")
    architecture = raw.get("model_type")
    known = isinstance(architecture, str) and architecture in CONFIG_MAPPING
    if "auto_map" in raw and not known:
        raise ModelNotExportable(
            "the model needs code that came with it, which is never run",
            got=f"model_type {architecture!r} with auto_map",
            expected="an architecture that transformers has",
        )
    config = _or_refuse(
        "the model's configuration cannot be read",
        "config.json of a Hugging Face model",
        lambda: AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
    )
    # The name and not the path: the same files give the same bundle wherever they lie.
    return ModelFolder(folder, folder.resolve().name if commit is None else model, commit, config)


def load_model(folder: Path, task: str) -> PreTrainedModel:
    """Load a model with its weights, in float32 for evaluation.

    Raises:
        ModelNotExportable: no such model, or weights that are absent.
    """
    model, report = _or_refuse(
        "the model cannot be loaded",
        "a Hugging Face model with config.json and safetensors weights",
        lambda: auto_class(task).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation="eager",  # as the graphs are traced
        ),
    )
    # The pooler feeds no logits; anything else that is missing would be random numbers.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelNotExportable(
            "weights of the model are missing",
            got=f"{len(missing)} absent, such as {missing[0]}",
            expected="every weight of the model in its files",
        )
    model.config.use_cache = False  # no past keys and values beside the logits, as the graphs are traced
    loaded: PreTrainedModel = model.eval()
    return loaded


def check_positions(model: nn.Module, config: PretrainedConfig, max_tokens: int) -> None:
    """Raise unless the model has a position for each of `max_tokens` tokens.

    Raises:
        ModelNotExportable: it has fewer.
    """
    limit = getattr(config, "max_position_embeddings", MAX_TOKENS)
    if not isinstance(limit, int):
        raise ModelNotExportable(
            "the model's configuration does not say how many positions there are",
            got=f"max_position_embeddings {limit!r}",
            expected="a whole number",
        )
    for name, table in model.named_modules():
        if isinstance(table, nn.Embedding) and name.endswith("position_embeddings") and table.padding_idx:
            limit -= table.padding_idx + 1  # RoBERTa counts from behind the padding's place
    if max_tokens > limit:
        raise ModelNotExportable(
            "max_tokens does not fit the model", got=max_tokens, expected=f"up to {limit}"
        )


def load_tokenizer(source: ModelFolder, max_tokens: int) -> Tokenizer:
    """The tokenizer, set to cut at `max_tokens` and to pad a batch on the right to its longest text.

    Decoders come without a padding token: what stands there is masked, so the end of a text serves.

    Raises:
        ModelNotExportable: none, a slow one, or one without a vocabulary or with more words than the model.
    """
    loaded = _or_refuse(
        "the model's tokenizer cannot be loaded",
        "tokenizer.json, or the vocabulary it is made from",
        lambda: AutoTokenizer.from_pretrained(  # type: ignore[no-untyped-call]
            source.path, local_files_only=True, trust_remote_code=False
        ),
    )
    backend = getattr(loaded, "backend_tokenizer", None)
    padding = loaded.pad_token or loaded.eos_token
    if backend is None or padding is None or backend.get_vocab_size() <= len(loaded.all_special_ids):
        raise ModelNotExportable(
            "the model's tokenizer cannot be used",
            got=type(loaded).__name__,
            expected="a fast tokenizer with a vocabulary and a token for padding or the end of a text",
        )
    # Added tokens do not count: Gemma 3's tokenizer has one for pictures, which no text becomes.
    words = backend.get_vocab_size(with_added_tokens=False)
    vocabulary = getattr(source.config, "vocab_size", words)  # a model of several parts has none of its own
    if words > vocabulary:
        raise ModelNotExportable(
            "the tokenizer is of another model", got=f"{words} words", expected=f"up to {vocabulary}"
        )
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(
        pad_id=loaded.convert_tokens_to_ids(padding), pad_type_id=loaded.pad_token_type_id, pad_token=padding
    )
    return tokenizer


def _locate(model: str, revision: str | None) -> tuple[Path, str | None]:
    """The local folder, and the hub's commit if the model came from there."""
    folder = Path(os.path.expanduser(model))  # leaves the name of a user whom nobody knows as it is
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotExportable("the folder holds no model", got=folder, expected="config.json inside")
        if revision is not None:
            raise ModelNotExportable("a local folder has no revisions", got=revision, expected="no revision")
        return folder, None
    from huggingface_hub import snapshot_download

    snapshot = _or_refuse(
        f"no model {model!r} on this machine or on the hub",
        "a local folder, or a hub id that can be reached",
        lambda: Path(snapshot_download(model, revision=revision, allow_patterns=_WANTED_FILES)),
    )
    return snapshot, snapshot.name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelNotExportable(f"{path.name} of the model cannot be read", got=error) from error
    return value if isinstance(value, dict) else {}


def _or_refuse(what: str, expected: str, load: Callable[[], Loaded]) -> Loaded:
    try:
        return load()
    # The loaders let through whatever their readers raise: OSError, ValueError, SafetensorError and more.
    except Exception as error:
        raise ModelNotExportable(what, got=first_line(error), expected=expected) from error
