"""Pushes an exported adapter version to the Hugging Face hub: one commit and one tag of a private repository.

Where the hub is and who pushes, its own variables and `hf auth login` say: HF_ENDPOINT, HF_TOKEN.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from hetlora.cli.parts import part
from hetlora.messages.registry import AdapterDetails

REPOSITORY: Final = "HETLORA_HUB_REPOSITORY"  # OWNER/NAME; without it, one named for the population


def push(folder: Path, entry: AdapterDetails) -> str:
    """Commit a folder to the population's repository, and tag it with the version; the commit's address."""
    with part("export"):
        from huggingface_hub import HfApi

    api = HfApi()
    repository = os.environ.get(REPOSITORY) or f"hetlora-{entry.lineage.population}"
    repository = str(api.create_repo(repository, private=True, exist_ok=True).repo_id)
    version = entry.status.version
    commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Adapter {version}")
    api.create_tag(repository, tag=version, revision=commit.oid, exist_ok=True)
    return str(commit.commit_url)
