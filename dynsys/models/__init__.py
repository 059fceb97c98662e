"""Models: maps that are trained to reproduce a time series. One file a model, all found through the registry."""
