"""Structures, embeddings and tables from and to files of other programs."""
