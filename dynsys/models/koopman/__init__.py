"""Koopman operators: a nonlinear system as a linear one on functions of its state.

    z = psi(x),   z[t+1] = K^T z[t],   x[t] = C z[t] or decode(z[t])

`lifted` holds what all of these models share, `dictionary` the functions psi, `moments` the streaming normal equations; every other
file is one method.
"""
