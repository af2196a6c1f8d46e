import subprocess
import sys

import pytest

import edge_sdk

# Imports edge_sdk and every module below it, then prints what must not have come along.
WALK = """
import importlib, pkgutil, sys
import edge_sdk
for module in pkgutil.walk_packages(edge_sdk.__path__, "edge_sdk."):
    importlib.import_module(module.name)
unwanted = ("torch", "transformers", "optimum", "onnxruntime.training", "export", "aggregator_service")
print([name for name in unwanted if name in sys.modules])
"""


def _printed(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_no_module_of_the_sdk_imports_what_belongs_to_export() -> None:
    assert _printed(WALK) == "[]"


def test_client_that_is_named_and_not_made_loads_no_network_runtime_or_tokenizer() -> None:
    """`hetlora bench install` tells the seconds that this is about."""
    heavy = "numpy", "httpx", "stamina", "tokenizers", "onnxruntime", "cryptography", "sqlite3", "psutil"
    program = f"""
import sys
from edge_sdk import EdgeClient
print([name for name in {heavy} if name in sys.modules])
print([name for name in sys.modules if name.startswith("edge_sdk.session")])
"""
    assert _printed(program).splitlines() == ["[]", "[]"]


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        edge_sdk.Nothing  # noqa: B018
