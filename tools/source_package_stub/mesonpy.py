"""Stands in for numpy's build backend."""

from metadata_only import prepare_metadata_for_build_wheel  # noqa: F401
