"""Metrics files, tables, pictures, figures and the page: what a person reads of the results.

Everything written here has stable bytes: equal content gives equal files on one machine, whatever ran before. Import
the module that is meant, such as `mdpipe.data.artifacts.metrics`, which needs nothing but the standard library.
"""
