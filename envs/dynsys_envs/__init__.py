"""Gymnasium environments of dynsys."""
