"""The manifest of a bundle: what a device needs to know before it trusts and trains a model."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from hetlora.adapter import AdapterSpec
from hetlora.cost import CostModel
from hetlora.digest import Sha256
from hetlora.errors import BundleInvalid, HetloraError, faults_in_words
from hetlora.messages.common import Count, FirstVersion, Integer, Message, ObjectRef, is_empty

SCHEMA_VERSION: Final = 1
MANIFEST_NAME: Final = "manifest.json"
MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
MAX_TOKENS: Final = 2**20
MAX_ROWS: Final = 2**16  # of the batches that a bundle is stamped for
# What file systems take: of one name, and of a path below the folder that a device keeps its bundles in.
MAX_NAME_BYTES: Final = 255
MAX_PATH_BYTES: Final = 1024


def _inside_bundle(path: str) -> str:
    plain = PurePosixPath(path)
    if path == "." or plain.is_absolute() or ".." in plain.parts or "\\" in path or ":" in path:
        raise ValueError(f"path {path!r} leaves the bundle")
    if str(plain) != path or not path.isprintable():
        raise ValueError(f"path {path!r} is not in its plain form")
    longest = max(len(part.encode()) for part in plain.parts)
    if longest > MAX_NAME_BYTES or len(path.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"path is longer than {MAX_PATH_BYTES} bytes, or a part of it than {MAX_NAME_BYTES}")
    return path


Task = Literal["text-classification", "text-generation", "image-classification", "text2text-generation"]
# How the frozen weights are stored, and which activations of the forward pass are made a second time.
Precision = Literal["float32", "float16", "bfloat16", "int8", "int4"]
Recompute = Literal["none", "selective", "layer"]

BundlePath = Annotated[str, AfterValidator(_inside_bundle)]


def takes_labels(task: str) -> bool:
    """Whether the classes are whatever an export names; those of images are the model's own."""
    return task == "text-classification"


def reads_images(task: str) -> bool:
    """Whether the model's input is a picture, and not a text that a tokenizer cuts."""
    return task == "image-classification"


def generates_text(task: str) -> bool:
    """Whether the model answers text, and not one of its labels."""
    return task in ("text-generation", "text2text-generation")


def has_decoder(task: str) -> bool:
    """Whether a decoder of its own writes the answer, beside the encoder that has read the text."""
    return task == "text2text-generation"


def _unique(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) != len(labels):
        raise ValueError(f"labels {labels!r} are not unique")
    return labels


class BaseModelInfo(Message):
    """Where the frozen weights come from, and how many numbers the model has.

    `sha256` is over the model's safetensors files, one after the other in the order of their names.
    """

    id: str
    revision: str | None
    sha256: Sha256
    parameters: Count


class TensorInput(Message):
    """One input of the training and inference graphs that the device's examples fill."""

    name: str
    dtype: Literal["int64", "float32"]
    shape: tuple[str | Integer, ...]  # a string is a symbolic dimension: "batch", "tokens"


class ImageInfo(Message):
    """How a picture becomes PIXEL_VALUES: scaled to [0, 1], then (value - mean) / std in each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class GenerationInfo(Message):
    """What ends and begins a generated text; a decoder that reads the prompt itself begins with nothing."""

    vocabulary: Count
    eos_token_ids: tuple[Count, ...]
    decoder_start_token_id: Count | None


class OptimizerInfo(Message):
    """AdamW (arXiv 1711.05101) with the bias correction; the learning rate is given at each step.

    The constants are attributes of the optimizer graph; a runtime without that graph reads them here.
    `epsilon` is added to the root of the corrected second moment, as torch.optim.AdamW does.
    """

    name: Literal["AdamW"]
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    epsilon: float = Field(gt=0)
    weight_decay: float = Field(ge=0)


class GraphFiles(Message):
    """Paths, inside the bundle, of the graphs and of what they read; pictures need no tokenizer."""

    training: BundlePath
    eval: BundlePath
    optimizer: BundlePath
    inference: BundlePath
    base_weights: BundlePath
    tokenizer: BundlePath | None


class ExecutorchFiles(Message):
    """Paths, inside the bundle, of the ExecuTorch programs and of the base weights that both read.

    Programs in `portable` run without XNNPACK, which refused them, and take several times as long.
    """

    training: BundlePath
    inference: BundlePath
    base_weights: BundlePath
    portable: tuple[BundlePath, ...] = ()


class PytorchFiles(Message):
    """Paths, inside the bundle, of what PyTorch builds the model from; see `hetlora.pytorch_files`.

    `weights` tells where in the graphs' base weights each of the model's lies, all in float32.
    """

    config: BundlePath
    weights: BundlePath


class ClientFiles(Message):
    """Path, inside the bundle, of what a phone or a page trains with besides the graphs' own files.

    `gradients` answers LOSS and the gradient of each trained factor, at any rank, in an ordinary session of
    any ONNX Runtime; it reads the graphs' base weights. Whoever opens it takes the steps.
    """

    gradients: BundlePath


def _is_absent(section: object) -> bool:
    return section is None


class ToolVersions(Message):
    """What wrote the graphs, and the oldest formats a runtime must read."""

    hetlora: str
    onnx: str
    onnxruntime: str
    opset: Integer
    ir_version: Integer


class Manifest(Message):
    """`manifest.json`: its SHA-256 is the digest of the whole bundle."""

    schema_version: FirstVersion
    task: Task
    labels: Annotated[tuple[str, ...], AfterValidator(_unique)]  # none where text is generated
    max_tokens: int = Field(strict=True, ge=1, le=MAX_TOKENS)
    base_model: BaseModelInfo
    adapter: AdapterSpec
    base_precision: Precision = "float32"
    recompute: Recompute = "none"
    # Modules of the adapter that its training graph takes as they are; an update has their factors as sent.
    untrained: tuple[str, ...] = Field(default=(), exclude_if=is_empty)
    # The one rank of its ONNX graphs, where they are stamped.
    fixed_rank: int | None = Field(default=None, strict=True, ge=1)
    inputs: tuple[TensorInput, ...]
    image: ImageInfo | None = None
    generation: GenerationInfo | None = None
    optimizer: OptimizerInfo
    graphs: GraphFiles
    executorch: ExecutorchFiles | None = None
    pytorch: PytorchFiles | None = Field(default=None, exclude_if=_is_absent)
    android: ClientFiles | None = Field(default=None, exclude_if=_is_absent)
    web: ClientFiles | None = Field(default=None, exclude_if=_is_absent)
    initial_adapter: BundlePath | None = None  # what runs begin with, where it is not fresh
    cost_model: CostModel
    versions: ToolVersions
    files: dict[BundlePath, ObjectRef]

    @property
    def generates(self) -> bool:
        """Whether the model answers text, and not one of `labels`."""
        return generates_text(self.task)

    @property
    def trained(self) -> tuple[str, ...]:
        """The modules of the adapter that training changes, as a rule all."""
        return tuple(name for name in self.adapter.by_name if name not in self.untrained)

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes that the bundle has files for, those of `edge_sdk.runtimes` first."""
        return tuple(name for name, section in self._sections().items() if section is not None)

    def files_of(self, runtime: str) -> frozenset[str]:
        """The files that one of `runtimes` opens; a phone or page, those that training opens.

        The optimizer graph is nobody's: Python, phones and pages take the steps themselves. Phones and pages
        fetch the inference graph later, where an app asks the model.

        Raises:
            BundleInvalid: the bundle has none for it.
        """
        section = self._sections().get(runtime)
        if section is None:
            raise BundleInvalid(f"the bundle has no files for {runtime}", expected="one exported with them")
        opened = {*section.model_dump(exclude={"optimizer", "portable"}).values(), self.graphs.tokenizer}
        if runtime in ("pytorch", "android", "web"):  # they read the weights of the graphs
            opened.add(self.graphs.base_weights)
        if runtime in ("android", "web"):
            opened.add(self.graphs.eval)
        return frozenset(opened - {None})

    def _sections(self) -> dict[str, Message | None]:
        return {
            "onnx": self.graphs,
            "executorch": self.executorch,
            "pytorch": self.pytorch,
            "android": self.android,
            "web": self.web,
        }

    @model_validator(mode="after")
    def _fits_task(self) -> Self:
        is_image = reads_images(self.task)
        fits = {
            "labels": not self.labels if self.generates else len(self.labels) >= 2,
            "generation": (self.generation is not None) == self.generates,
            "image": (self.image is not None) == is_image,
            "tokenizer": (self.graphs.tokenizer is None) == is_image,
        }
        unfit = [name for name, is_fit in fits.items() if not is_fit]
        if unfit:
            raise ValueError(f"these do not fit the task {self.task}: {', '.join(unfit)}")
        return self

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        strangers = sorted(set(self.untrained) - self.adapter.by_name.keys())
        if strangers or not self.trained:
            raise ValueError(f"untrained names {', '.join(strangers) or 'all modules'} of the adapter")
        if self.untrained and (self.executorch or self.pytorch):
            raise ValueError("untrained modules are of ONNX's graphs alone")
        return self

    def to_json(self) -> bytes:
        """The bytes of manifest.json: the same manifest gives the same bytes."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def parse_manifest(data: bytes) -> Manifest:
    """Read manifest.json.

    Raises:
        BundleInvalid: too large, not JSON, refused by the schema (the message names the fields), or of files
            that no folder can hold together.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleInvalid(
            "manifest is too large", got=len(data), expected=f"up to {MAX_MANIFEST_BYTES} bytes"
        )
    try:
        manifest = Manifest.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise BundleInvalid(
            "manifest does not fit its schema", got=faults_in_words(error.errors())
        ) from error
    except HetloraError as error:  # an impossible adapter specification
        raise BundleInvalid("manifest holds an impossible adapter specification", got=error) from error
    named = {*manifest.graphs.model_dump(exclude_none=True).values(), manifest.initial_adapter} - {None}
    if manifest.executorch is not None:
        named |= set(manifest.executorch.model_dump(exclude={"portable"}).values())
    for section in (manifest.pytorch, manifest.android, manifest.web):
        if section is not None:
            named |= set(section.model_dump().values())
    unlisted = sorted(named - manifest.files.keys())
    if unlisted:
        raise BundleInvalid("manifest names graph files that it does not list", got=unlisted)
    _check_names(manifest)
    return manifest


def _check_names(manifest: Manifest) -> None:
    """One place of the bundle's folder cannot be two files, or a file and a folder."""
    folders = {str(parent) for path in manifest.files for parent in PurePosixPath(path).parents}
    names = Counter([MANIFEST_NAME, *manifest.files, *folders])
    clashing = sorted(name for name, count in names.items() if count > 1)
    if clashing:
        raise BundleInvalid("manifest lists files that cannot lie beside each other", got=clashing)
