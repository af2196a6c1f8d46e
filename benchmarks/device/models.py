"""Small models of random weights, exported once into a folder that a board can be given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.parts import part
from hetlora.manifest import MANIFEST_NAME, Precision, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LABELS: Final = ("dry", "wet", "windy", "still")
MAX_RANK: Final = 32
MAX_TOKENS: Final = 256


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """How a model is made and exported; of no shape that the forecast's constants were fitted to."""

    task: Task
    targets: Sequence[str]
    base: Precision
    config: str
    sizes: Mapping[str, Any]
    labels: Sequence[str] = ()
    runtimes: Sequence[str] = ("onnx",)


_DECODER: Final = DeviceModel(
    "text-generation",
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    "int8",
    "LlamaConfig",
    {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 16000,
        "tie_word_embeddings": True,
        "max_position_embeddings": 2 * MAX_TOKENS,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
)
MODELS: Final[Mapping[str, DeviceModel]] = {
    # 13 M parameters, weights in int8, and the same in float32.
    "decoder": _DECODER,
    "decoder-float32": replace(_DECODER, base="float32"),
    # 17 M parameters, and no decoder.
    "encoder": DeviceModel(
        "text-classification",
        ("query", "key", "value"),
        "float32",
        "BertConfig",
        {
            "hidden_size": 288,
            "intermediate_size": 1152,
            "num_hidden_layers": 8,
            "num_attention_heads": 6,
            "vocab_size": 30522,
            "max_position_embeddings": 2 * MAX_TOKENS,
        },
        LABELS,
    ),
    # ViT-Tiny's shape: 5.5 M parameters, 197 tokens a picture.
    "vision": DeviceModel(
        "image-classification",
        ("query", "key", "value"),
        "float32",
        "ViTConfig",
        {
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 3,
            "image_size": 224,
            "patch_size": 16,
            "num_labels": len(LABELS),
        },
    ),
}


def bundles_in(
    folder: Path,
    names: Sequence[str],
    *,
    seed: int,
    tell: Callable[[str], None],
    models: Mapping[str, DeviceModel] = MODELS,
) -> dict[str, Bundle]:
    """The bundles of these of the models, each exported where the folder lacks it.

    Raises:
        DependencyMissing: one is missing, and `hetlora[export]` is not installed here.
        BundleInvalid, DigestMismatch: one that is there is damaged.
    """
    found = {}
    for name in names:
        place = folder / name
        if not (place / MANIFEST_NAME).is_file():
            tell(f"exporting {name}")
            _export(models[name], folder / f".{name}-model", place, seed)
        found[name] = open_bundle(place)
    return found


def _export(model: DeviceModel, source: Path, out: Path, seed: int) -> None:
    with part("export"):
        from export.bundle_writer import export_bundle
    if not source.is_dir():
        _write(model, source, seed)
    export_bundle(
        str(source),
        out,
        task=model.task,
        targets=model.targets,
        labels=model.labels,
        max_rank=MAX_RANK,
        max_tokens=MAX_TOKENS,
        base=model.base,
        runtimes=model.runtimes,
    )


def _write(model: DeviceModel, folder: Path, seed: int) -> None:
    import torch

    from export.quiet import quiet_libraries

    with torch.random.fork_rng(devices=[]), quiet_libraries():
        torch.manual_seed(seed)
        network = _network(model)
        with torch.no_grad():
            for parameter in network.parameters():
                # No two weights equal, as in a trained model; fresh norms are all ones and biases all zeros.
                parameter.add_(0.01 * torch.randn_like(parameter))
        network.save_pretrained(folder)
        if model.task != "image-classification":
            _write_tokenizer(folder, pads=model.task == "text-classification")


def _network(model: DeviceModel) -> PreTrainedModel:
    import transformers

    config = getattr(transformers, model.config)(**model.sizes)
    kind = {
        "text-generation": transformers.AutoModelForCausalLM,
        "text-classification": transformers.AutoModel,
        "image-classification": transformers.AutoModelForImageClassification,
    }[model.task]
    network: PreTrainedModel = kind.from_config(config)  # type: ignore[no-untyped-call]
    return network


def _write_tokenizer(folder: Path, *, pads: bool) -> None:
    """Of a few words: texts are stretched to the tokens that are asked for."""
    from tokenizers import Tokenizer  # type: ignore[import-untyped]
    from tokenizers.models import WordLevel  # type: ignore[import-untyped]
    from tokenizers.pre_tokenizers import Whitespace  # type: ignore[import-untyped]
    from transformers import PreTrainedTokenizerFast

    words = ("<|endoftext|>", "<unk>", "[PAD]", "the", "rain", "falls", *LABELS)
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    padding = {"pad_token": "[PAD]"} if pads else {}
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        model_max_length=MAX_TOKENS,
        **padding,
    ).save_pretrained(folder)
