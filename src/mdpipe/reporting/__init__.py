"""Reporting: tables, figures, the page, and samples as images and animations.

All files have stable bytes: equal content gives equal files on one machine. Import the module that you need: training
and evaluation import none of them; only stage `report` and the benchmark of estimators import `charts`, and with it
Altair.
"""
