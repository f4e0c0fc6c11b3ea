"""Tokenization: from raw documents and images to encoded datasets."""
