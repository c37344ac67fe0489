"""A generic training launcher. Knows no recipe; `launcher --help` shows what it does."""
