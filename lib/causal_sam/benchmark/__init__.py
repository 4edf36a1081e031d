"""Measuring the product: nothing else of the package depends on this part."""
