"""Transcripts: what a language model said, kept and shown."""

from vantage.language.transcripts.records import Record, read_transcripts, recorder, transcripts

__all__ = ["Record", "read_transcripts", "recorder", "transcripts"]
