"""Evaluation of reconstructors: benchmarks, result cache, tables and figures, self-test."""
