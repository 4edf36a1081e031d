"""Readers of public data sets, one module each, and of a site's own folders."""
