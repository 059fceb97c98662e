"""Certificates: candidates for Lyapunov functions, sound bounds, branch and bound, proofs without a hole at the equilibrium."""
