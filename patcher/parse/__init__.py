"""Text to syntax, one module a language."""
