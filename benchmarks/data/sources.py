"""Where the data sets of the benchmarks come from; none of them is part of the project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Source:
    """A public data set: which files of which commit go into the folder `name`, and its licence.

    `files` are patterns that each match a file there.
    """

    name: str
    task: str  # of `hetlora bench quality`
    repository: str
    commit: str
    path: str
    files: Sequence[str]
    licence: str

    @property
    def home(self) -> str:
        """The address of the files at that commit."""
        return f"https://github.com/{self.repository}/tree/{self.commit}/{self.path}"

    def missing(self, folder: Path) -> list[str]:
        """The patterns that match nothing in a folder of data sets."""
        return [pattern for pattern in self.files if next((folder / self.name).glob(pattern), None) is None]


SOURCES: Final = (
    Source(
        "banking77",
        "intents",
        "PolyAI-LDN/task-specific-datasets",
        "57ec275d8078af65b7731c2a98be812d844a6d6b",
        "banking_data",
        ("train.csv", "test.csv"),
        "CC BY 4.0",
    ),
    Source(
        "clinc150",
        "domains",
        "clinc/oos-eval",
        "828f8093932c8fe6ca7936c3d2e52903b1c523de",
        "data",
        ("data_full.json", "domains.json"),
        "CC BY 3.0",
    ),
    Source(
        "hwu64",
        "scenarios",
        "xliuhw/NLU-Evaluation-Data",
        "f6071b496b17d71e6eb43f543af0707f4ff30557",
        "CrossValidation/autoGeneFromRealAnno/autoGene_2018_03_22-13_01_25_169/CrossValidation/KFold_1",
        ("train/*.csv", "test/*.csv"),
        "CC BY 4.0",
    ),
    Source(
        "tiny_shakespeare",
        "speakers",
        "karpathy/char-rnn",
        "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e",
        "data/tinyshakespeare",
        ("*.txt",),
        "the plays are in the public domain; the repository says MIT",
    ),
    Source(
        "qmsum",
        "summaries",
        "Yale-LILY/QMSum",
        "83d7768c1f2b4dfeb091385d3dc7e239b8e5bb7e",
        "data",
        ("*/val/*.json", "*/test/*.json"),
        "MIT",
    ),
    Source(
        "natural_instructions_40",
        "instructions",
        "alibaba/FederatedScope",
        "1cb1ab76bf4c9394d617c4c5a800cb0df145796d",
        "data/1613",
        ("local_training_*.json", "local_test_*.json"),
        "Apache 2.0; the texts behind the tasks have terms of their own",
    ),
    Source(
        "locomo",
        "personas",
        "snap-research/locomo",
        "e76cdff4a04fce19090596d49862fe87a5c15aaa",
        "data",
        ("*.json",),
        "CC BY-NC 4.0: not for commercial use",
    ),
)
