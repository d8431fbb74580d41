"""The checks that a result passes before it is emitted."""
