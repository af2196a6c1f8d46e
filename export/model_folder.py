"""Finds and loads the pretrained model: a local folder as it lies, a hub id through the hub's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from tokenizers import Tokenizer  # type: ignore[import-untyped]
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from hetlora.errors import ModelNotExportable
from hetlora.manifest import BaseModelInfo

Loaded = TypeVar("Loaded")

# Pickled weights are left out on purpose: loading them runs code of their author.
_WANTED_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


@dataclass(frozen=True, slots=True)
class PretrainedModel:
    """The encoder in evaluation mode, its tokenizer as devices will use it, and where both come from."""

    encoder: PreTrainedModel
    tokenizer: Tokenizer
    info: BaseModelInfo


def load_pretrained(model: str, *, revision: str | None, max_tokens: int) -> PretrainedModel:
    """Load an encoder and its tokenizer without running code that came with them.

    Raises:
        ModelNotExportable: no such folder or id, no safetensors weights, missing weights, no fast tokenizer.
    """
    folder, commit = _locate(model, revision)
    weights = _weight_files(folder)
    encoder = load_encoder(folder)
    _check_positions(encoder, max_tokens)
    info = BaseModelInfo(
        # The name and not the path: the same files give the same bundle wherever they lie.
        id=folder.resolve().name if commit is None else model,
        revision=commit,
        sha256=_digest(weights),
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
    )
    return PretrainedModel(encoder, _load_tokenizer(folder, max_tokens), info)


def load_encoder(folder: Path) -> PreTrainedModel:
    """Load the encoder of a local folder in float32, for evaluation."""
    encoder, report = _or_refuse(
        "the model cannot be loaded",
        "a Hugging Face encoder with config.json and safetensors weights",
        lambda: AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation="eager",  # the plainest graph: no sqrt on both sides of the scores
        ),
    )
    # The pooler feeds no logits; anything else that is missing would be random numbers.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelNotExportable(
            "weights of the model are missing",
            got=f"{len(missing)} absent, such as {missing[0]}",
            expected="every weight of the encoder in the file",
        )
    loaded: PreTrainedModel = encoder.eval()
    return loaded


def _locate(model: str, revision: str | None) -> tuple[Path, str | None]:
    """The local folder, and the hub's commit if the model came from there."""
    folder = Path(model).expanduser()
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


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ModelNotExportable(
            "the model has no weights that are safe to load",
            got=sorted(path.name for path in folder.iterdir())[:8],
            expected="model.safetensors",
        )
    return files


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _check_positions(encoder: PreTrainedModel, max_tokens: int) -> None:
    limit = int(getattr(encoder.config, "max_position_embeddings", max_tokens))
    if not 3 <= max_tokens <= limit:  # one word between the two special tokens
        raise ModelNotExportable(
            "max_tokens does not fit the model", got=max_tokens, expected=f"3 to {limit}"
        )


def _load_tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    """The tokenizer, set to cut at `max_tokens` and to pad a batch to its longest text."""
    loaded = _or_refuse(
        "the model's tokenizer cannot be loaded",
        "tokenizer.json, or the vocabulary it is made from",
        lambda: AutoTokenizer.from_pretrained(  # type: ignore[no-untyped-call]
            folder, local_files_only=True, trust_remote_code=False
        ),
    )
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None or loaded.pad_token is None or backend.get_vocab_size() <= len(loaded.all_special_ids):
        raise ModelNotExportable(
            "the model's tokenizer cannot be used",
            got=type(loaded).__name__,
            expected="a fast tokenizer with a vocabulary and a padding token",
        )
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(
        pad_id=loaded.pad_token_id, pad_type_id=loaded.pad_token_type_id, pad_token=loaded.pad_token
    )
    return tokenizer


def _or_refuse(what: str, expected: str, load: Callable[[], Loaded]) -> Loaded:
    try:
        return load()
    # The loaders let through whatever their readers raise: OSError, ValueError, SafetensorError and more.
    except Exception as error:
        first_line = next(iter(str(error).splitlines()), "")
        raise ModelNotExportable(
            what, got=f"{type(error).__name__}: {first_line}", expected=expected
        ) from error
