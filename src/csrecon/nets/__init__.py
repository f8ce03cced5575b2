"""Proximal networks: one ProxBlock and one builder a file."""
