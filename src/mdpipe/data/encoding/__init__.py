"""Encoding: from raw documents and pictures to an encoded dataset."""
