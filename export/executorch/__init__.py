"""The programs of a bundle for ExecuTorch."""
