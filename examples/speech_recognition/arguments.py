"""The options that only speech recognition has."""

from dataclasses import dataclass

from common.arguments import DataArguments


@dataclass
class SpeechArguments(DataArguments):
    """Which data; files have the columns audio (or path), a sound file each, and text."""
