"""Measuring reconstructors: benchmarks, their result cache, tables and figures, the self-test."""
