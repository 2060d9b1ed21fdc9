"""Saying a command's outcome: in words, or as one JSON object on standard output."""

import argparse
import sys
from typing import Any, TextIO


def tell(
    asked: argparse.Namespace, content: Any, words: str, *, file: TextIO | None = None
) -> None:
    """Say it; ``file`` is for the words alone, standard output otherwise."""
    if getattr(asked, "json", False):
        import json

        sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    else:
        (file or sys.stdout).write(words.rstrip("\n") + "\n")
