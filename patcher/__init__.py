"""Patches the Bitcoin Core CI scripts, and proves the patch before it comes out."""

__version__ = "0.1.0"
