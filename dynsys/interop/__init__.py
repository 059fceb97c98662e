"""Bridges to other frameworks: `dynsys.interop.torch` turns models, cells and flows into PyTorch modules and back."""
