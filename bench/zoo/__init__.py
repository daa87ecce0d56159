"""Which PyTorch functions can be published with their derivatives: a collection, tried one by one.

``python -m bench.zoo`` tries what was not tried yet, keeps the results in ``results.json``, and
writes the tables of docs/exporting.md.
"""
